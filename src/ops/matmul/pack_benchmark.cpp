// Weights of every stored type to panels, one thread: what loading costs.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "ops/matmul/matmul.h"

namespace qnext::ops {
namespace {

void pack(benchmark::State& state, DType source, DType format) {
  constexpr int64_t rows = 2048, columns = 2048;
  std::mt19937 random(1);
  std::vector<std::byte> bytes(dtype_bytes(source, rows * columns));
  // No exponent of a number or a factor is all ones.
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0x3B);
  AlignedBuffer panels(packed_bytes(format, rows, columns), "a benchmark's panels");
  const WeightMatrix view{source, rows, columns, bytes.data(), nullptr};
  for (auto _ : state) pack_weights(view, format, panels.data());
  state.SetItemsProcessed(state.iterations() * rows * columns);
}

[[maybe_unused]] const bool registered = [] {
  for (DType source :
       {DType::bf16, DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::iq4_nl,
        DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_xs})
    for (DType format : {DType::q8_0, DType::q4_0}) {
      const std::string name =
          std::string(dtype_name(source)) + "/" + std::string(dtype_name(format));
      benchmark::RegisterBenchmark(name.c_str(),
                                   [=](benchmark::State& state) { pack(state, source, format); });
    }
  return true;
}();

}  // namespace
}  // namespace qnext::ops
