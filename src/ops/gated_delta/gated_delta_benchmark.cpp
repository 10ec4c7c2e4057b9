// Decode and prefill of Gated DeltaNet at the released sizes: 16 key heads, 32 value heads,
// 128 x 128. bytes_per_second counts one read and one write of the state a sequence: compare with
// the machine's copy bandwidth. "flops" counts the four multiply-adds an element of the state.
#include <benchmark/benchmark.h>

#include <vector>

#include "ops/gated_delta/gated_delta.h"

namespace qnext::ops {
namespace {

constexpr GatedDeltaShape shape{16, 32, 128, 128};
constexpr int64_t qkv_width = (2 * 16 + 32) * 128;
constexpr int64_t state_size = 32 * 128 * 128;

// Arguments: rows a sequence, sequences, threads. States are taken in turn from 128 MiB, so that
// they come from memory as they do in a model of many layers.
void gated_delta(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const int64_t count = state.range(1);
  ThreadPool pool(static_cast<int>(state.range(2)));
  constexpr int64_t slots = 64;
  std::vector<float> states(static_cast<size_t>(slots * state_size), 0.01f);
  std::vector<float> source(static_cast<size_t>(rows * count * qkv_width));
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<float>(i * 7 % 13) - 6;
  std::vector<float> qkv = source;
  std::vector<float> ab(static_cast<size_t>(rows * count * 64), 0.1f);
  std::vector<float> heads(32, 0.1f);
  std::vector<float> out(static_cast<size_t>(rows * count * 32 * 128));
  std::vector<float*> state_out(static_cast<size_t>(rows * count), nullptr);
  int64_t slot = 0;
  for (auto _ : state) {
    std::vector<DeltaSequence> sequences;
    for (int64_t i = 0; i < count; ++i, slot = (slot + 1) % slots) {
      float* at = states.data() + slot * state_size;
      state_out[static_cast<size_t>((i + 1) * rows - 1)] = at;
      sequences.push_back({i * rows, rows, at, state_out.data() + i * rows});
    }
    gated_delta(pool, shape,
                {qkv.data(), qkv_width, ab.data(), ab.data() + 32, 64, heads.data(), heads.data()},
                sequences, out.data(), 32 * 128);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * count * state_size * 8);
  state.counters["flops"] = benchmark::Counter(static_cast<double>(rows * count * state_size * 8),
                                               benchmark::Counter::kIsIterationInvariantRate);
  state.counters["token_us"] = benchmark::Counter(
      static_cast<double>(rows * count) * 1e-6,
      benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(gated_delta)
    ->ArgNames({"rows", "sequences", "threads"})
    ->Args({1, 1, 1})
    ->Args({1, 1, 2})
    ->Args({1, 8, 2})
    ->Args({4, 1, 2})
    ->Args({256, 1, 1})
    ->Args({256, 1, 2})
    ->UseRealTime();

}  // namespace
}  // namespace qnext::ops
