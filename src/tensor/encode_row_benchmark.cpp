// Weights to blocks, one thread: what `qnext quantize` spends its time on.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "tensor/encode_row.h"

namespace qnext {
namespace {

void encode(benchmark::State& state, DType dtype, bool weighted) {
  constexpr size_t count = 1 << 16;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(count), importance(count), decoded(count);
  for (float& value : values) value = normal(random);
  for (float& weight : importance) weight = std::abs(normal(random));
  std::vector<std::byte> blocks(dtype_bytes(dtype, count));
  for (auto _ : state)
    encode_row(dtype, values.data(), weighted ? importance.data() : nullptr, count, blocks.data());
  state.SetItemsProcessed(state.iterations() * count);
  convert_to_float(dtype, blocks.data(), decoded.data(), count);
  double error = 0, norm = 0;
  for (size_t i = 0; i < count; ++i) {
    const double weight = weighted ? importance[i] : 1;
    error += weight * (values[i] - decoded[i]) * (values[i] - decoded[i]);
    norm += weight * values[i] * values[i];
  }
  state.counters["relative_error"] = std::sqrt(error / norm);
}

[[maybe_unused]] const bool registered = [] {
  for (int i = static_cast<int>(DType::q8_0); i <= static_cast<int>(DType::iq4_xs); ++i)
    for (const bool weighted : {false, true}) {
      const auto dtype = static_cast<DType>(i);
      const std::string name = std::string(dtype_name(dtype)) + (weighted ? "/weighted" : "");
      benchmark::RegisterBenchmark(
          name.c_str(), [=](benchmark::State& state) { encode(state, dtype, weighted); });
    }
  return true;
}();

}  // namespace
}  // namespace qnext
