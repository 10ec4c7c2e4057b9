// Products at the widths of the 80B model. Decode shapes report the share of the read bandwidth
// that a plain read loop reaches, measured between the runs; prefill shapes 10^9 multiply-adds a
// second. Arguments: dtype, instruction set, rows of x, outputs, inputs.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "base/bandwidth.h"
#include "base/cpu_features.h"
#include "ops/matmul/matmul.h"

namespace {

using namespace qnext;
using namespace qnext::ops;

ThreadPool& pool() {
  static ThreadPool threads;
  return threads;
}

ReadBandwidth& read_bandwidth() {
  static ReadBandwidth bandwidth(size_t{1} << 30);
  return bandwidth;
}

struct Matrix {
  AlignedBuffer data;
  std::vector<float> scales;
  WeightMatrix view;
};

// Random bytes are valid weights of every type but for the exponents, which do not matter to time.
Matrix make_matrix(DType dtype, int64_t rows, int64_t columns) {
  Matrix matrix;
  matrix.view = {dtype, rows, columns, nullptr, nullptr};
  matrix.data = AlignedBuffer(weight_bytes(matrix.view), "weights");
  std::mt19937 random(1);
  for (uint32_t& word : matrix.data.as<uint32_t>())
    word = static_cast<uint32_t>(random()) & 0x3C3F3C3F;
  matrix.scales.assign(static_cast<size_t>((rows / 128 + 1) * (columns / 128 + 1)), 1.0f);
  matrix.view.data = matrix.data.data();
  matrix.view.block_scales = matrix.scales.data();
  return matrix;
}

void product(benchmark::State& state, DType dtype, Isa isa, int64_t rows, int64_t outputs,
             int64_t inputs) {
  if (isa > best_isa()) return state.SkipWithError("not on this machine");
  limit_isa(isa);
  // Enough copies that none is in cache when its turn comes.
  std::vector<Matrix> matrices;
  size_t bytes = 0;
  while (bytes < (size_t{256} << 20)) {
    matrices.push_back(make_matrix(dtype, outputs, inputs));
    bytes += weight_bytes(matrices.back().view);
  }
  std::vector<float> values(static_cast<size_t>(rows * inputs));
  std::mt19937 random(2);
  for (float& value : values) value = static_cast<float>(random() % 1000) / 500.0f - 1.0f;
  Activations x{values.data(), rows, inputs, inputs, nullptr};
  AlignedBuffer quantized(quantized_activation_bytes(rows, inputs), "activations");
  if (is_block_quantized(dtype)) x = quantize_activations(pool(), x, quantized.data());
  std::vector<float> y(static_cast<size_t>(rows * outputs));

  double best_bandwidth = 0;
  double best_seconds = 1e9;
  size_t next = 0;
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = 0; i < matrices.size(); ++i)
      matmul(pool(), x, matrices[next++ % matrices.size()].view, y.data(), outputs);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best_seconds = std::min(best_seconds, elapsed.count() / static_cast<double>(matrices.size()));
    state.SetIterationTime(elapsed.count() / static_cast<double>(matrices.size()));
    if (rows < 8) best_bandwidth = std::max(best_bandwidth, read_bandwidth().pass(pool()));
  }
  limit_isa(Isa::avx512);
  const double read = static_cast<double>(weight_bytes(matrices[0].view)) / best_seconds;
  state.counters["GB/s"] = read * 1e-9;
  if (rows < 8) state.counters["of_read"] = read / best_bandwidth;
  state.counters["GMAC/s"] = static_cast<double>(rows * outputs * inputs) / best_seconds * 1e-9;
}

[[maybe_unused]] const bool registered = [] {
  struct Shape {
    int64_t rows, outputs, inputs;
  };
  for (DType dtype : {DType::q4_0, DType::q8_0, DType::q4_k, DType::q5_k, DType::q6_k, DType::q4_1,
                      DType::q5_0, DType::q5_1, DType::iq4_nl, DType::iq4_xs, DType::q3_k,
                      DType::q2_k, DType::f8_e4m3, DType::bf16, DType::f16, DType::f32})
    for (Isa isa : {Isa::avx2, Isa::avx512})
      for (const Shape& shape :
           {Shape{1, 12288, 2048}, Shape{1, 2048, 4096}, Shape{1, 151936, 2048},
            Shape{4, 12288, 2048}, Shape{10, 512, 2048}, Shape{10, 2048, 512},
            Shape{512, 12288, 2048}, Shape{512, 2048, 4096}}) {
        const std::string name = std::string(dtype_name(dtype)) + "/" + std::string(isa_name(isa)) +
                                 "/" + std::to_string(shape.rows) + "x" +
                                 std::to_string(shape.outputs) + "x" + std::to_string(shape.inputs);
        benchmark::RegisterBenchmark(name.c_str(),
                                     [=](benchmark::State& state) {
                                       product(state, dtype, isa, shape.rows, shape.outputs,
                                               shape.inputs);
                                     })
            ->UseManualTime()
            ->Iterations(shape.rows < 100 ? 5 : 2);
      }
  return true;
}();

}  // namespace
