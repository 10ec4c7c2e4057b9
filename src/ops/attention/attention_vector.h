// The inner kernels on the Vector of whichever activation/vector_*.h was included before. The
// including file also supplies, for its lanes:
//   tile_rows                      queries of a register tile; sums fit the registers
//   store_sums                     the vectors sums[tile_rows * key + query] of 4 keys to 4 scores
//   a
//                                  query, each added up as reduce_add does
//   widen_values, narrow_values    `lanes` bf16 to floats and back
//   widen_bytes                    `lanes` signed bytes to floats
//   widen_half                     one f16 to a float
#pragma once

#include "ops/activation/vector_exp.h"
#include "ops/attention/attention_kernels.h"

namespace qnext::ops {
namespace {

constexpr float infinity = __builtin_inff();

inline void widen_row(const uint16_t* source, int64_t head_dim, int64_t padded, float* out) {
  int64_t d = 0;
  for (; d + lanes <= head_dim; d += lanes) store(out + d, widen_values(source + d));
  for (; d < padded; ++d) {
    const uint32_t bits = d < head_dim ? static_cast<uint32_t>(source[d]) << 16 : 0;
    __builtin_memcpy(out + d, &bits, sizeof bits);
  }
}

inline void copy_row(const float* source, int64_t head_dim, int64_t padded, float* out) {
  int64_t d = 0;
  for (; d + lanes <= head_dim; d += lanes) store(out + d, load(source + d));
  for (; d < padded; ++d) out[d] = d < head_dim ? source[d] : 0.0f;
}

// A factor has 11 significant bits and a byte 8: their product is exact. Blocks leave no rest of
// head_dim to pad.
inline void widen_blocks(const char* blocks, int64_t head_dim, float* out) {
  for (int64_t d = 0; d < head_dim; d += q8_0_values, blocks += q8_0_bytes) {
    uint16_t half;
    __builtin_memcpy(&half, blocks, sizeof half);
    const Vector factor = splat(widen_half(half));
#pragma GCC unroll 4
    for (int64_t i = 0; i < q8_0_values; i += lanes)
      store(out + d + i, multiply(factor, widen_bytes(blocks + sizeof half + i)));
  }
}

inline void widen_vector(const void* source, CacheFormat format, int64_t count, int64_t head_dim,
                         int64_t padded, float* out) {
  for (int64_t j = 0; j < count; ++j, out += padded) {
    if (format == CacheFormat::bf16)
      widen_row(static_cast<const uint16_t*>(source) + j * head_dim, head_dim, padded, out);
    else if (format == CacheFormat::q8_0)
      widen_blocks(static_cast<const char*>(source) + j * head_dim / q8_0_values * q8_0_bytes,
                   head_dim, out);
    else
      copy_row(static_cast<const float*>(source) + j * head_dim, head_dim, padded, out);
  }
}

inline void narrow_vector(const float* source, int64_t count, uint16_t* out) {
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) narrow_values(load(source + i), out + i);
  if (i < count) {
    uint16_t rest[lanes];
    narrow_values(load_first(source + i, count - i), rest);
    for (int64_t j = 0; i + j < count; ++j) out[i + j] = rest[j];
  }
}

// `rows` queries against `keys` keys. Each pair's sum runs over vectors in ascending order and is
// then added up across lanes in one way, whatever the tile it falls into.
template <int64_t rows, int64_t keys>
inline void score_tile(const float* q, const float* k, int64_t padded, float scale, float* out,
                       int64_t stride) {
  Vector sums[keys * rows];
#pragma GCC unroll 16
  for (int64_t i = 0; i < keys * rows; ++i) sums[i] = zero();
  for (int64_t d = 0; d < padded; d += lanes) {
    Vector key[keys];
#pragma GCC unroll 4
    for (int64_t j = 0; j < keys; ++j) key[j] = load(k + j * padded + d);
#pragma GCC unroll 4
    for (int64_t m = 0; m < rows; ++m) {
      const Vector query = load(q + m * padded + d);
#pragma GCC unroll 4
      for (int64_t j = 0; j < keys; ++j)
        sums[j * rows + m] = fma(query, key[j], sums[j * rows + m]);
    }
  }
  if constexpr (rows == tile_rows && keys == 4) {
    store_sums(sums, scale, out, stride);
  } else {
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t j = 0; j < keys; ++j)
        out[m * stride + j] = scale * reduce_add(sums[j * rows + m]);
  }
}

// The share of `ahead` that the steps from `begin` to `end` of `steps` ask for, to the second-level
// cache.
inline void prefetch_share(Ahead ahead, int64_t begin, int64_t end, int64_t steps) {
  const int64_t last = ahead.bytes * end / steps;
  for (int64_t at = ahead.bytes * begin / steps; at < last; at += 64)
    __builtin_prefetch(ahead.at + at, 0, 2);
}

template <int64_t rows>
inline void score_rows(const float* q, const float* keys, int64_t positions, int64_t padded,
                       float scale, float* out, int64_t stride, Ahead ahead) {
  int64_t j = 0;
  for (; j + 4 <= positions; j += 4) {
    prefetch_share(ahead, j, j + 4, positions);
    score_tile<rows, 4>(q, keys + j * padded, padded, scale, out + j, stride);
  }
  for (; j < positions; ++j)
    score_tile<rows, 1>(q, keys + j * padded, padded, scale, out + j, stride);
}

inline void scores_vector(const float* q, int64_t queries, const float* keys, int64_t positions,
                          int64_t padded, float scale, float* out, int64_t stride, Ahead ahead) {
  const auto some = [&](auto score, int64_t m) {
    score(q + m * padded, keys, positions, padded, scale, out + m * stride, stride,
          m == 0 ? ahead : Ahead{});
  };
  int64_t m = 0;
  for (; m + tile_rows <= queries; m += tile_rows) some(score_rows<tile_rows>, m);
  for (; m + 2 <= queries; m += 2) some(score_rows<2>, m);
  if (m < queries) some(score_rows<1>, m);
}

// What scores are measured from; infinitely small ones must not make inf - inf.
inline float score_base(float most) {
  return most == -infinity ? 0.0f : most;
}

inline float exponential_of(float x) {
  return first_lane(exponential(splat(x)));
}

inline void scale_row(float* out, int64_t padded, float factor) {
  if (factor == 1.0f) return;
  for (int64_t d = 0; d < padded; d += lanes)
    store(out + d, multiply(load(out + d), splat(factor)));
}

inline void soften_vector(float* s, int64_t valid, AttentionState* state, float* out,
                          int64_t padded) {
  constexpr int64_t vectors = attention_scores / lanes;
  Vector x[vectors];
  Vector most = splat(state->maximum);
  for (int64_t i = 0; i < vectors; ++i) {
    const int64_t n = valid - i * lanes;
    x[i] = n >= lanes ? load(s + i * lanes)
                      : keep_first(load_first(s + i * lanes, n > 0 ? n : 0), n > 0 ? n : 0,
                                   splat(-infinity));
    most = maximum(most, x[i]);
  }
  const float new_maximum = reduce_maximum(most);
  const float base = score_base(new_maximum);
  Vector sums = zero();
  for (int64_t i = 0; i < vectors; ++i) {
    x[i] = exponential(subtract(x[i], splat(base)));
    store(s + i * lanes, x[i]);
    sums = add(sums, x[i]);
  }
  const float kept = exponential_of(state->maximum - base);
  state->maximum = new_maximum;
  state->sum = state->sum * kept + reduce_add(sums);
  scale_row(out, padded, kept);
}

// `rows` queries, `vectors` vectors of the value rows from column d on.
template <int64_t rows, int64_t vectors>
inline void value_tile(const float* p, int64_t p_stride, const float* values, int64_t positions,
                       int64_t padded, float* out) {
  Vector sums[rows * vectors];
#pragma GCC unroll 16
  for (int64_t i = 0; i < rows * vectors; ++i)
    sums[i] = load(out + i / vectors * padded + i % vectors * lanes);
  for (int64_t j = 0; j < positions; ++j) {
    Vector value[vectors];
#pragma GCC unroll 4
    for (int64_t i = 0; i < vectors; ++i) value[i] = load(values + j * padded + i * lanes);
#pragma GCC unroll 4
    for (int64_t m = 0; m < rows; ++m) {
      const Vector weight = splat(p[m * p_stride + j]);
#pragma GCC unroll 4
      for (int64_t i = 0; i < vectors; ++i)
        sums[m * vectors + i] = fma(weight, value[i], sums[m * vectors + i]);
    }
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < rows * vectors; ++i)
    store(out + i / vectors * padded + i % vectors * lanes, sums[i]);
}

template <int64_t rows>
inline void value_rows(const float* p, int64_t p_stride, const float* values, int64_t positions,
                       int64_t padded, float* out, Ahead ahead) {
  int64_t d = 0;
  for (; d + 4 * lanes <= padded; d += 4 * lanes) {
    prefetch_share(ahead, d, d + 4 * lanes, padded);
    value_tile<rows, 4>(p, p_stride, values + d, positions, padded, out + d);
  }
  for (; d < padded; d += lanes)
    value_tile<rows, 1>(p, p_stride, values + d, positions, padded, out + d);
}

inline void add_values_vector(const float* p, int64_t p_stride, int64_t queries,
                              const float* values, int64_t positions, int64_t padded, float* out,
                              Ahead ahead) {
  const auto some = [&](auto add_rows, int64_t m) {
    add_rows(p + m * p_stride, p_stride, values, positions, padded, out + m * padded,
             m == 0 ? ahead : Ahead{});
  };
  int64_t m = 0;
  for (; m + tile_rows <= queries; m += tile_rows) some(value_rows<tile_rows>, m);
  for (; m + 2 <= queries; m += 2) some(value_rows<2>, m);
  if (m < queries) some(value_rows<1>, m);
}

inline void merge_vector(const AttentionState* piece, const float* piece_out, AttentionState* whole,
                         float* out, int64_t padded) {
  const float most = whole->maximum > piece->maximum ? whole->maximum : piece->maximum;
  const float base = score_base(most);
  const float kept = exponential_of(whole->maximum - base);
  const float added = exponential_of(piece->maximum - base);
  whole->maximum = most;
  whole->sum = whole->sum * kept + piece->sum * added;
  for (int64_t d = 0; d < padded; d += lanes)
    store(out + d, fma(load(piece_out + d), splat(added), multiply(load(out + d), splat(kept))));
}

inline void finish_vector(const AttentionState* whole, const float* out, const float* gate,
                          int64_t head_dim, float* y) {
  const Vector factor = splat(1.0f / whole->sum);
  int64_t d = 0;
  for (; d + lanes <= head_dim; d += lanes) {
    Vector value = multiply(load(out + d), factor);
    if (gate != nullptr) value = multiply(value, sigmoid(load(gate + d)));
    store(y + d, value);
  }
  if (d < head_dim) {
    Vector value = multiply(load(out + d), factor);
    if (gate != nullptr) value = multiply(value, sigmoid(load_first(gate + d, head_dim - d)));
    store_first(y + d, value, head_dim - d);
  }
}

}  // namespace
}  // namespace qnext::ops
