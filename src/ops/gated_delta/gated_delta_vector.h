// The column-block kernel on the Vector of whichever activation/vector_*.h was included before.
//
// Columns go in pairs of vectors. A row of tokens takes one walk down the rows of S: it is decayed,
// changed and read by q, and at once by the next token's k, which needs no second walk then.
#pragma once

#include "ops/gated_delta/gated_delta_kernels.h"

namespace qnext::ops {
namespace {

constexpr int64_t pair_columns = 2 * lanes;
static_assert(delta_block % pair_columns == 0);

struct VectorPair {
  Vector first;
  Vector second;
};

// `columns` of pair_columns; the memory behind them is left alone.
template <bool full>
inline VectorPair load_pair(const float* p, int64_t columns) {
  if (full) return {load(p), load(p + lanes)};
  if (columns < lanes) return {load_first(p, columns), zero()};
  return {load(p), load_first(p + lanes, columns - lanes)};
}
template <bool full>
inline void store_pair(float* p, VectorPair x, int64_t columns) {
  if (full || columns >= lanes)
    store(p, x.first);
  else
    store_first(p, x.first, columns);
  if (full)
    store(p + lanes, x.second);
  else if (columns > lanes)
    store_first(p + lanes, x.second, columns - lanes);
}
inline VectorPair fma(Vector a, VectorPair b, VectorPair c) {
  return {fma(a, b.first, c.first), fma(a, b.second, c.second)};
}
inline VectorPair multiply(Vector a, VectorPair b) {
  return {multiply(a, b.first), multiply(a, b.second)};
}

// k^T S, even and odd rows apart: two chains a vector hide the latency of the addition.
struct Recall {
  VectorPair even{zero(), zero()};
  VectorPair odd{zero(), zero()};
};

struct StateRows {
  const float* from;
  int64_t from_stride;
  float* to;
  int64_t to_stride;
};

template <bool full>
inline Recall recall(const DeltaBlock& block, const float* k, const StateRows& state) {
  Recall sums;
  int64_t i = 0;
  for (; i + 2 <= block.key_dim; i += 2) {
    const float* s = state.from + i * state.from_stride;
    sums.even = fma(splat(k[i]), load_pair<full>(s, block.columns), sums.even);
    sums.odd =
        fma(splat(k[i + 1]), load_pair<full>(s + state.from_stride, block.columns), sums.odd);
  }
  if (i < block.key_dim)
    sums.even = fma(splat(k[i]), load_pair<full>(state.from + i * state.from_stride, block.columns),
                    sums.even);
  return sums;
}

// One token, given what its k recalls of the state before it. has_next: returns what the next
// token's k recalls of the state after it.
template <bool full, bool has_next>
inline Recall advance_row(const DeltaBlock& block, int64_t t, const Recall& recalled,
                          const StateRows& state) {
  const float* q = block.q + t * block.qkv_stride;
  const float* k = block.k + t * block.qkv_stride;
  const float* v = block.v + t * block.qkv_stride;
  const float* next = k + block.qkv_stride;
  const Vector decay = splat(block.decay[t * block.ab_stride]);
  const Vector beta = splat(block.beta[t * block.ab_stride]);
  const VectorPair value = load_pair<full>(v, block.columns);
  const auto changed = [&](Vector v_part, Vector even, Vector odd) {
    return multiply(beta, subtract(v_part, multiply(decay, add(even, odd))));
  };
  const VectorPair change{changed(value.first, recalled.even.first, recalled.odd.first),
                          changed(value.second, recalled.even.second, recalled.odd.second)};
  VectorPair sum{zero(), zero()};
  Recall next_recalled;
  const auto step = [&](int64_t i, VectorPair& of_next) {
    const VectorPair old = load_pair<full>(state.from + i * state.from_stride, block.columns);
    const VectorPair s = fma(splat(k[i]), change, multiply(decay, old));
    store_pair<full>(state.to + i * state.to_stride, s, block.columns);
    sum = fma(splat(q[i]), s, sum);
    if (has_next) of_next = fma(splat(next[i]), s, of_next);
  };
  int64_t i = 0;
  for (; i + 2 <= block.key_dim; i += 2) {
    step(i, next_recalled.even);
    step(i + 1, next_recalled.odd);
  }
  if (i < block.key_dim) step(i, next_recalled.even);
  store_pair<full>(block.out + t * block.out_stride, sum, block.columns);
  return next_recalled;
}

template <bool full>
inline void advance_columns(const DeltaBlock& block) {
  StateRows state{block.state_in, block.state_stride, nullptr, 0};
  if (state.from == nullptr) {
    for (int64_t i = 0; i < block.key_dim * pair_columns; i += lanes) store(block.slab + i, zero());
    state.from = block.slab;
    state.from_stride = pair_columns;
  }
  Recall recalled = recall<full>(block, block.k, state);
  for (int64_t t = 0; t < block.rows; ++t) {
    state.to = block.slab;
    state.to_stride = pair_columns;
    if (block.state_out != nullptr && block.state_out[t] != nullptr) {
      state.to = block.state_out[t] + block.state_offset;
      state.to_stride = block.state_stride;
    }
    if (t + 1 < block.rows)
      recalled = advance_row<full, true>(block, t, recalled, state);
    else
      advance_row<full, false>(block, t, recalled, state);
    state.from = state.to;
    state.from_stride = state.to_stride;
  }
}

inline void delta_advance_vector(const DeltaBlock& block) {
  if (block.rows == 0) return;
  for (int64_t column = 0; column < block.columns; column += pair_columns) {
    DeltaBlock part = block;
    part.v += column;
    part.out += column;
    part.state_in = block.state_in == nullptr ? nullptr : block.state_in + column;
    part.state_offset += column;
    part.columns = block.columns - column;
    part.columns >= pair_columns ? advance_columns<true>(part) : advance_columns<false>(part);
  }
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
