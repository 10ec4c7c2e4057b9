// Attention at the released sizes: 16 query heads, 2 key/value heads, head_dim 256.
// bytes_per_second counts one read of the context's keys and values; "flops" two multiply-adds a
// query, position and dimension that the causal mask leaves.
#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "ops/attention/attention.h"

namespace qnext::ops {
namespace {

// Arguments: cached positions, rows, bytes a value (4 f32, 2 bf16, 1 q8_0), threads.
void attention(benchmark::State& state) {
  const int64_t cached = state.range(0);
  const int64_t rows = state.range(1);
  const DType dtype = state.range(2) == 4   ? DType::f32
                      : state.range(2) == 2 ? DType::bf16
                                            : DType::q8_0;
  const AttentionShape shape{16, 2, 256, 64};
  ThreadPool pool(static_cast<int>(state.range(3)));
  const int64_t page_count = (cached + rows + 63) / 64;
  std::vector<int32_t> pages(static_cast<size_t>(page_count));
  std::iota(pages.begin(), pages.end(), 0);
  std::vector<float> memory(kv_page_bytes(shape, dtype) / 4 * pages.size());
  const KvCache cache{memory.data(), static_cast<int64_t>(kv_page_bytes(shape, dtype)), dtype};
  std::vector<float> kv(static_cast<size_t>((cached + rows) * 512));
  for (size_t i = 0; i < kv.size(); ++i) kv[i] = static_cast<float>(i * 7919 % 1009) / 1009 - 0.5f;
  const AttentionSequence all{0, cached + rows, 0, pages.data()};
  kv_write(pool, shape, cache, kv.data(), kv.data(), 512, {&all, 1});
  const AttentionSequence sequence{0, rows, cached, pages.data()};
  const std::vector<float> q(static_cast<size_t>(rows * 16 * 512), 0.3f);
  std::vector<float> out(static_cast<size_t>(rows * 16 * 256));
  std::vector<char> workspace(attention_workspace(shape, {&sequence, 1}, pool.size()));
  for (auto _ : state) {
    attention(pool, shape, cache, {q.data(), 8192, 512, q.data() + 256, 8192, 512, 0.0625f},
              {&sequence, 1}, out.data(), 4096, workspace.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(dtype_bytes(dtype, 1024)) *
                          (cached + rows));
  const int64_t pairs = rows * cached + rows * (rows + 1) / 2;
  state.counters["flops"] = benchmark::Counter(static_cast<double>(pairs * 16 * 256 * 4),
                                               benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(attention)
    ->ArgNames({"cached", "rows", "bytes", "threads"})
    ->Args({32768, 1, 4, 1})
    ->Args({32768, 1, 2, 1})
    ->Args({32768, 1, 1, 1})
    ->Args({32768, 1, 4, 2})
    ->Args({32768, 1, 2, 2})
    ->Args({32768, 1, 1, 2})
    ->Args({32768, 4, 2, 2})
    ->Args({32768, 4, 1, 2})
    ->Args({0, 512, 4, 1})
    ->Args({0, 512, 2, 1})
    ->Args({0, 512, 1, 1})
    ->Args({4096, 512, 2, 2})
    ->Args({4096, 512, 1, 2})
    ->UseRealTime();

}  // namespace
}  // namespace qnext::ops
