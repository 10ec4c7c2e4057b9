// The column-block kernel on the Vector of whichever activation/vector_*.h was included before.
#pragma once

#include "ops/gated_delta/gated_delta_kernels.h"

namespace qnext::ops {
namespace {

constexpr int64_t block_vectors = delta_block / lanes;

// A run of state rows: a whole state in memory, or the slab.
struct StateRows {
  float* at;
  int64_t stride;
};

// One row of a block's vectors; a partial block leaves the memory behind its columns alone.
template <bool full>
inline Vector load_columns(const float* row, int64_t vector, int64_t columns) {
  if (full) return load(row + vector * lanes);
  const int64_t left = columns - vector * lanes;
  return left >= lanes ? load(row + vector * lanes)
                       : load_first(row + vector * lanes, left > 0 ? left : 0);
}
template <bool full>
inline void store_columns(float* row, int64_t vector, int64_t columns, Vector x) {
  if (full) return store(row + vector * lanes, x);
  const int64_t left = columns - vector * lanes;
  if (left >= lanes) return store(row + vector * lanes, x);
  store_first(row + vector * lanes, x, left > 0 ? left : 0);
}

template <bool full>
inline void advance_row(const DeltaBlock& block, int64_t t, const float* from, int64_t from_stride,
                        StateRows to) {
  const float* q = block.q + t * block.qkv_stride;
  const float* k = block.k + t * block.qkv_stride;
  const float* v = block.v + t * block.qkv_stride;
  const Vector decay = splat(block.decay[t * block.ab_stride]);
  const Vector beta = splat(block.beta[t * block.ab_stride]);

  // k^T S, even and odd rows apart: two chains a vector hide the latency.
  Vector even[block_vectors];
  Vector odd[block_vectors];

#pragma GCC unroll 4
  for (int64_t j = 0; j < block_vectors; ++j) even[j] = odd[j] = zero();
  int64_t i = 0;
  for (; i + 2 <= block.key_dim; i += 2) {
    const float* s = from + i * from_stride;
    const Vector k0 = splat(k[i]);
    const Vector k1 = splat(k[i + 1]);

#pragma GCC unroll 4
    for (int64_t j = 0; j < block_vectors; ++j) {
      even[j] = fma(k0, load_columns<full>(s, j, block.columns), even[j]);
      odd[j] = fma(k1, load_columns<full>(s + from_stride, j, block.columns), odd[j]);
    }
  }
  if (i < block.key_dim)

#pragma GCC unroll 4
    for (int64_t j = 0; j < block_vectors; ++j)
      even[j] =
          fma(splat(k[i]), load_columns<full>(from + i * from_stride, j, block.columns), even[j]);

  Vector change[block_vectors];
  Vector sum[block_vectors];

#pragma GCC unroll 4
  for (int64_t j = 0; j < block_vectors; ++j) {
    const Vector recalled = multiply(decay, add(even[j], odd[j]));
    change[j] = multiply(beta, subtract(load_columns<full>(v, j, block.columns), recalled));
    sum[j] = zero();
  }
  for (i = 0; i < block.key_dim; ++i) {
    const Vector ki = splat(k[i]);
    const Vector qi = splat(q[i]);

#pragma GCC unroll 4
    for (int64_t j = 0; j < block_vectors; ++j) {
      const Vector s =
          fma(ki, change[j],
              multiply(decay, load_columns<full>(from + i * from_stride, j, block.columns)));
      store_columns<full>(to.at + i * to.stride, j, block.columns, s);
      sum[j] = fma(qi, s, sum[j]);
    }
  }

#pragma GCC unroll 4
  for (int64_t j = 0; j < block_vectors; ++j)
    store_columns<full>(block.out + t * block.out_stride, j, block.columns, sum[j]);
}

template <bool full>
inline void advance_rows(const DeltaBlock& block) {
  const float* from = block.state_in;
  int64_t from_stride = block.state_stride;
  if (from == nullptr) {
    for (int64_t i = 0; i < block.key_dim * delta_block; i += lanes) store(block.slab + i, zero());
    from = block.slab;
    from_stride = delta_block;
  }
  for (int64_t t = 0; t < block.rows; ++t) {
    StateRows to{block.slab, delta_block};
    if (block.state_out != nullptr && block.state_out[t] != nullptr)
      to = {block.state_out[t] + block.state_offset, block.state_stride};
    advance_row<full>(block, t, from, from_stride, to);
    from = to.at;
    from_stride = to.stride;
  }
}

inline void delta_advance_vector(const DeltaBlock& block) {
  block.columns == delta_block ? advance_rows<true>(block) : advance_rows<false>(block);
}

inline void l2_normalize_vector(float* x, int64_t width, float scale) {
  Vector sum = zero();
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes) sum = fma(load(x + i), load(x + i), sum);
  if (i < width) {
    const Vector v = load_first(x + i, width - i);
    sum = fma(v, v, sum);
  }
  const Vector factor = splat(1.0f / __builtin_sqrtf(reduce_add(sum) + 1e-6f) * scale);
  for (i = 0; i + lanes <= width; i += lanes) store(x + i, multiply(load(x + i), factor));
  if (i < width) store_first(x + i, multiply(load_first(x + i, width - i), factor), width - i);
}

}  // namespace
}  // namespace qnext::ops
