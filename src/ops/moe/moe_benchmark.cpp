// The mixture of experts of one layer of the 80B model: hidden 2048, 512 experts of width 512,
// 10 a token and the shared one. Decode reports the share of the read bandwidth that a plain read
// loop reaches, measured between the runs; prefill 10^9 multiply-adds a second.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "base/bandwidth.h"
#include "base/cpu_features.h"
#include "ops/moe/moe.h"

namespace {

using namespace qnext;
using namespace qnext::ops;

constexpr int64_t hidden = 2048;
constexpr int64_t width = 512;
constexpr int64_t expert_count = 512;
constexpr int64_t slots = 11;

ThreadPool& pool() {
  static ThreadPool threads;
  return threads;
}

struct Layer {
  AlignedBuffer data;
  std::vector<GatedExpert> experts;
  size_t expert_bytes = 0;
};

Layer make_layer(DType dtype) {
  Layer layer;
  WeightMatrix across{dtype, width, hidden, nullptr, nullptr};
  WeightMatrix down{dtype, hidden, width, nullptr, nullptr};
  const size_t bytes[] = {weight_bytes(across), weight_bytes(across), weight_bytes(down)};
  layer.expert_bytes = bytes[0] + bytes[1] + bytes[2];
  layer.data = AlignedBuffer(layer.expert_bytes * (expert_count + 1), "experts");
  std::mt19937 random(1);
  for (uint32_t& word : layer.data.as<uint32_t>())
    word = static_cast<uint32_t>(random()) & 0x3C3F3C3F;
  const std::byte* at = layer.data.data();
  for (int64_t e = 0; e <= expert_count; ++e) {
    GatedExpert expert{across, across, down};
    expert.gate.data = at;
    expert.up.data = at + bytes[0];
    expert.down.data = at + bytes[0] + bytes[1];
    layer.experts.push_back(expert);
    at += layer.expert_bytes;
  }
  return layer;
}

void mixture(benchmark::State& state, DType dtype, Isa isa, int64_t rows) {
  if (isa > best_isa()) return state.SkipWithError("not on this machine");
  limit_isa(isa);
  const Layer layer = make_layer(dtype);
  ReadBandwidth read_bandwidth(size_t{512} << 20);
  std::vector<float> values(static_cast<size_t>(rows * hidden));
  std::mt19937 random(2);
  for (float& value : values) value = static_cast<float>(random() % 1000) / 500.0f - 1.0f;
  Activations x{values.data(), rows, hidden, hidden, nullptr};
  AlignedBuffer quantized(quantized_activation_bytes(rows, hidden), "activations");
  x = quantize_activations(pool(), x, quantized.data());
  AlignedBuffer workspace(gated_experts_workspace(rows, slots, hidden, width), "workspace");
  std::vector<float> y(static_cast<size_t>(rows * hidden));
  std::vector<float> weights(static_cast<size_t>(rows * slots), 0.1f);
  std::vector<int32_t> ids(static_cast<size_t>(rows * slots));

  double best = 1e9;
  double best_bandwidth = 0;
  // One decode step is short: time several with fresh experts.
  const int repeats = rows < 8 ? 16 : 1;
  for (auto _ : state) {
    double elapsed = 0;
    for (int i = 0; i < repeats; ++i) {
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t slot = 0; slot < slots; ++slot)
          ids[static_cast<size_t>(row * slots + slot)] =
              slot == slots - 1 ? int32_t{expert_count}
                                : static_cast<int32_t>(random() % expert_count);
      const auto start = std::chrono::steady_clock::now();
      gated_experts(pool(), x, layer.experts, ids.data(), weights.data(), slots, y.data(), hidden,
                    workspace.data());
      elapsed += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    elapsed /= repeats;
    best = std::min(best, elapsed);
    state.SetIterationTime(elapsed);
    if (rows < 8) best_bandwidth = std::max(best_bandwidth, read_bandwidth.pass(pool()));
  }
  limit_isa(Isa::avx512);
  if (rows == 1) {
    const double read = static_cast<double>(layer.expert_bytes * slots) / best;
    state.counters["GB/s"] = read * 1e-9;
    state.counters["of_read"] = read / best_bandwidth;
  }
  state.counters["GMAC/s"] = static_cast<double>(rows * slots * 3 * hidden * width) / best * 1e-9;
}

[[maybe_unused]] const bool registered = [] {
  for (DType dtype : {DType::q4_0, DType::q8_0, DType::q4_k, DType::q6_k})
    for (Isa isa : {Isa::avx2, Isa::avx512})
      for (int64_t rows : {1, 4, 64, 512}) {
        const std::string name = std::string(dtype_name(dtype)) + "/" + std::string(isa_name(isa)) +
                                 "/" + std::to_string(rows);
        benchmark::RegisterBenchmark(
            name.c_str(), [=](benchmark::State& state) { mixture(state, dtype, isa, rows); })
            ->UseManualTime()
            ->Iterations(rows < 8 ? 8 : 3);
      }
  return true;
}();

}  // namespace
