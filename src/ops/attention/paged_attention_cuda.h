// Gated attention of the fast CUDA path over a paged cache: attention.h's formula on bf16
// activations and tensor cores. Conventions in ops/batch_cuda.h, but strides are in elements of
// their matrix; launches overlap (launch_cuda.cuh) and can be captured.
//
// The batch's arrays and the norm weights are read before earlier kernels end (it saves most of a
// microsecond a launch): only copies may write them, or a kernel with a launch behind it that does
// not overlap. The same holds for keys and values of positions before a sequence's rows, which the
// answer form reads then too.
//
// A layer's cache. Page p of 64 positions begins at base + p * page_stride and holds, per kv head,
// a block of keys and a block of values of 64 * head_dim elements each, in bf16 or in e4m3 (scale
// 1; what exceeds +-448 is stored as +-448). Both are cut into pieces of 8 rows x 16 bytes, 128
// contiguous bytes, which is what ldmatrix and wgmma (without swizzle) read; 16 positions of keys
// or of values are contiguous:
//
//   keys           [64 / 8][head_dim / n][8 positions][n]   n = 16 bytes of elements: 8 or 16
//   values, bf16   [64 / 8][head_dim / 8][8 positions][8]
//   values, f8     [64 / 16][head_dim][16 positions]        transposed: FP8 wgmma wants it so
//
// A value's 16 positions stand in the order in which a lane of mma holds them: position
// 8 u + 2 t + e is byte 4 t + 2 u + e (u, e of 0, 1; t of 0..3).
//
// Two forms. Answers (decoded rows, drafts to verify; 1 to 8 rows a sequence) are memory-bound: the
// context is cut into pieces by the number of positions that the row sees, which blocks take side
// by side. Prompts are compute-bound: tiles of rows walk over the keys in ascending tiles of 64.
// The forms order their sums differently; within a form a row's bits depend on the row and its past
// alone. Which sequences are which is the caller's: both launchers take a Batch whose `sequence`
// and `sequences` may be a part of the step's; its rows count from the step's first row, `rows` and
// `sequence_of` are not read.
//
// Positions behind a sequence's last row are never read into a result, whatever bits lie there.
// Positions behind a row's own but before that last one have weight zero: they reach the row only
// if they are infinite or NaN (f8 caches hold neither).
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/batch_cuda.h"
#include "ops/matmul/packed_matrix_cuda.h"

namespace qnext::ops::cuda {

constexpr int64_t page_positions = 64;
constexpr int64_t most_answer_rows = 8;  // of a sequence
// Rows of a sequence that one call takes see numbers of positions of the same span. Spans end at
// these, and behind the last of them at multiples of answer_span.
constexpr int64_t answer_span_ends[] = {1024, 2048, 65536};
constexpr int64_t answer_span = 132 * page_positions;

// How many of the rows from `position` on one call may take.
constexpr int64_t answer_rows_from(int64_t position) {
  const int64_t seen = position + 1;
  for (const int64_t end : answer_span_ends)
    if (seen <= end) return end + 1 - seen;
  return (seen + answer_span - 1) / answer_span * answer_span + 1 - seen;
}

enum class KvFormat { bf16, f8 };

// Query head h uses kv head h / (query_heads / kv_heads).
struct PagedShape {
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;  // a multiple of 16 up to 256
  KvFormat format = KvFormat::bf16;
};

struct PagedCache {
  std::byte* base = nullptr;  // 128-byte aligned
  int64_t page_stride = 0;    // bytes, a multiple of 128
};

// One layer's part of a page.
constexpr int64_t paged_page_bytes(const PagedShape& shape) {
  return 2 * page_positions * shape.kv_heads * shape.head_dim *
         (shape.format == KvFormat::bf16 ? 2 : 1);
}

// The projections of all rows, bf16, and what becomes of them. q_gate: per head head_dim query
// values, then head_dim gate values. Pointers 16-byte aligned (cosine
// and sine too), strides multiples of 8.
struct PagedProjections {
  const Bf16* q_gate = nullptr;  // [rows, query_heads, 2, head_dim]
  int64_t q_gate_stride = 0;
  const Bf16* k = nullptr;  // [rows, kv_heads * head_dim]
  int64_t k_stride = 0;
  const Bf16* v = nullptr;  // [rows, kv_heads * head_dim]
  int64_t v_stride = 0;
  const float* q_norm = nullptr;  // [head_dim], zero-centred
  const float* k_norm = nullptr;
  float eps = 0;
  const float* cosine = nullptr;  // [rows, half], rope_angles of rope_cuda.h
  const float* sine = nullptr;
  int64_t half = 0;  // 2 * half <= head_dim
};

// Every row of the step (batch.rows, sequence_of): queries and keys normalised and rotated in fp32;
// queries to q [rows, query_heads * head_dim] as bf16, keys and values to the cache. One launch.
void paged_prepare(cudaStream_t stream, const Batch& batch, const PagedShape& shape,
                   const PagedCache& cache, const PagedProjections& projections, Bf16* q,
                   int64_t q_stride);

// q as paged_prepare leaves it, gate = q_gate + head_dim: its heads are 2 * head_dim apart.
// out [rows, query_heads * head_dim] = softmax(scale * q k) v * sigmoid(gate).
struct PagedAttention {
  const Bf16* q = nullptr;
  int64_t q_stride = 0;
  const Bf16* gate = nullptr;
  int64_t gate_stride = 0;
  float scale = 1;
  Bf16* out = nullptr;
  int64_t out_stride = 0;
};

// longest: at least the number of positions that the last row of any of the sequences sees. It and
// most_rows (of a sequence, up to most_answer_rows) shape the launch, not the results: round them
// up (powers of two) where a captured graph is to serve several steps. rows: of the step.
size_t paged_answer_workspace(const PagedShape& shape, int64_t rows, int64_t longest);
void paged_attention_answer(cudaStream_t stream, const Batch& batch, const PagedShape& shape,
                            const PagedCache& cache, const PagedAttention& inputs,
                            int64_t most_rows, int64_t longest, void* workspace);

// paged_prepare and paged_attention_answer in one launch, with their bits, where each sequence has
// one row. inputs.q is not used; workspace as paged_answer_workspace() says.
bool paged_row_takes(const PagedShape& shape, int64_t half);
void paged_attention_row(cudaStream_t stream, const Batch& batch, const PagedShape& shape,
                         const PagedCache& cache, const PagedProjections& projections,
                         const PagedAttention& inputs, int64_t longest, void* workspace);

// Over f8 caches products are of e4m3: each row and head of q is rounded to it as a row of
// matmul/f8_rows_cuda.h; softmax's weights are rounded times 256 over the
// largest in their tile of 64 positions (so within 2^-4 of their own size or 2^-18 of the largest).
// Over bf16 caches weights are rounded to bf16.
//
// rows: at least the rows of all the sequences together; shapes the launch.
void paged_attention_prompt(cudaStream_t stream, const Batch& batch, const PagedShape& shape,
                            const PagedCache& cache, const PagedAttention& inputs, int64_t rows);

}  // namespace qnext::ops::cuda
