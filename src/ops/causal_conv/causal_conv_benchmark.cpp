// The released size: 8192 channels, width 4; values a second.
#include <benchmark/benchmark.h>

#include <vector>

#include "ops/causal_conv/causal_conv.h"

namespace qnext::ops {
namespace {

void causal_conv(benchmark::State& state) {
  constexpr int64_t channels = 8192;
  const int64_t rows = state.range(0);
  const std::vector<float> x(static_cast<size_t>(rows * channels), 0.5f);
  const std::vector<float> weight(4 * channels, 0.25f);
  std::vector<float> conv_state(3 * channels, 0.5f);
  std::vector<float*> state_out(static_cast<size_t>(rows), nullptr);
  state_out.back() = conv_state.data();
  std::vector<float> y(x.size());
  ThreadPool pool(1);
  const ConvSequence sequence{0, rows, conv_state.data(), state_out.data()};
  for (auto _ : state) {
    ops::causal_conv(pool, x.data(), channels, weight.data(), channels, 4, {&sequence, 1}, y.data(),
                     channels);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * rows * channels);
}
BENCHMARK(causal_conv)->ArgName("rows")->Arg(1)->Arg(128);

}  // namespace
}  // namespace qnext::ops
