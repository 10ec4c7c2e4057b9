// Rows of 2048 (the residual stream) and gated rows of 128 (a value head), in cache: values a
// second.
#include <benchmark/benchmark.h>

#include <vector>

#include "ops/rms_norm/rms_norm.h"

namespace qnext::ops {
namespace {

void rms_norm_rows(benchmark::State& state) {
  const int64_t width = state.range(0);
  const std::vector<float> x(static_cast<size_t>(width), 0.5f);
  std::vector<float> y(x.size());
  for (auto _ : state) {
    rms_norm_row(x.data(), x.data(), 1e-6f, width, y.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * width);
}
BENCHMARK(rms_norm_rows)->Arg(256)->Arg(2048);

void gated_rms_norm_rows(benchmark::State& state) {
  const int64_t width = state.range(0);
  const std::vector<float> x(static_cast<size_t>(width), 0.5f);
  std::vector<float> y(x.size());
  for (auto _ : state) {
    gated_rms_norm_row(x.data(), x.data(), x.data(), 1e-6f, width, y.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * width);
}
BENCHMARK(gated_rms_norm_rows)->Arg(128);

}  // namespace
}  // namespace qnext::ops
