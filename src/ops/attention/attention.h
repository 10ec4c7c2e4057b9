// Causal grouped-query attention over a paged key/value cache, with the sigmoid output gate of
// gated attention (Qiu et al. 2025).
//
//   s_j = scale * q . k_j for j <= position of the row;  o = sum softmax(s)_j v_j * sigmoid(gate)
//
// Query head h uses kv head h / (query_heads / kv_heads). Softmax in fp32, online over blocks of
// `attention_block` positions in ascending order; a context longer than `attention_split` positions
// is cut there into pieces whose partial results are merged in order. Both boundaries are absolute
// positions, so a row's bits do not depend on the batch, the chunk it came in, the size of a page
// or the number of threads. Positions behind a row's own are never read into its result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "tensor/dtype.h"

namespace qnext::ops {

constexpr int64_t attention_block = 64;
constexpr int64_t attention_split = 2048;

struct AttentionShape {
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t page_tokens = 0;  // positions a page holds: a power of two
};

// One layer's cache. Page p holds keys at p * page_stride and values behind them, each
// [kv_heads, page_tokens, head_dim] in `dtype`: f32, bf16 or q8_0. The last has blocks of 32 values
// of one head and position (tensor/blocks.h), so head_dim must be a multiple of 32; they are
// widened exactly, and scores and sums are in fp32 whatever the type. A value that is not a number
// becomes zero in q8_0, and an infinite one makes its block NaN.
struct KvCache {
  void* base = nullptr;
  int64_t page_stride_bytes = 0;
  DType dtype = DType::f32;
};
size_t kv_page_bytes(const AttentionShape& shape, DType dtype);

struct AttentionSequence {
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_position = 0;      // of first_row; the sequence's earlier positions are cached
  const int32_t* pages = nullptr;  // [ceil((first_position + rows) / page_tokens)]
};

// Stores the keys and values [all rows, kv_heads * head_dim] of these rows at their positions.
void kv_write(ThreadPool& pool, const AttentionShape& shape, const KvCache& cache,
              const float* keys, const float* values, int64_t row_stride,
              std::span<const AttentionSequence> sequences);

// q, gate, out: [all rows, query_heads * head_dim] with row strides q_stride, gate_stride,
// out_stride, heads q_head_stride and gate_head_stride floats apart (the projection interleaves
// query and gate per head); out heads are dense. gate null: no gate. Reads the rows' own keys from
// the cache: call kv_write first. workspace: attention_workspace() bytes.
struct AttentionInputs {
  const float* q = nullptr;
  int64_t q_stride = 0;
  int64_t q_head_stride = 0;
  const float* gate = nullptr;
  int64_t gate_stride = 0;
  int64_t gate_head_stride = 0;
  float scale = 1;
};
size_t attention_workspace(const AttentionShape& shape,
                           std::span<const AttentionSequence> sequences, int threads);
void attention(ThreadPool& pool, const AttentionShape& shape, const KvCache& cache,
               const AttentionInputs& inputs, std::span<const AttentionSequence> sequences,
               float* out, int64_t out_stride, void* workspace);

// fp64 oracle of one query head at one position: q [head_dim], keys and values
// [positions, head_dim] -> out [head_dim], no gate.
void attention_oracle(const double* q, const double* keys, const double* values, int64_t positions,
                      int64_t head_dim, double scale, double* out);

}  // namespace qnext::ops
