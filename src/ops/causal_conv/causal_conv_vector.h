// The tile kernel on the Vector of whichever activation/vector_*.h was included before.
#pragma once

#include "ops/activation/vector_exp.h"
#include "ops/causal_conv/causal_conv_kernels.h"

namespace qnext::ops {
namespace {

constexpr int64_t widest_conv = 16;  // wider ones, which no model has, take the scalar kernel

// Weights by tap, [width, conv_tile], so that channels lie side by side.
inline void transpose_weights(const ConvTile& tile, float* by_tap) {
  int64_t c = 0;
  if (tile.width == 4) {
    for (; c + 4 <= tile.channels; c += 4) {
      const float* from = tile.weight + c * 4;
      __m128 row0 = _mm_loadu_ps(from);
      __m128 row1 = _mm_loadu_ps(from + 4);
      __m128 row2 = _mm_loadu_ps(from + 8);
      __m128 row3 = _mm_loadu_ps(from + 12);
      _MM_TRANSPOSE4_PS(row0, row1, row2, row3);
      _mm_storeu_ps(by_tap + c, row0);
      _mm_storeu_ps(by_tap + conv_tile + c, row1);
      _mm_storeu_ps(by_tap + 2 * conv_tile + c, row2);
      _mm_storeu_ps(by_tap + 3 * conv_tile + c, row3);
    }
  }
  for (; c < tile.channels; ++c)
    for (int64_t j = 0; j < tile.width; ++j)
      by_tap[j * conv_tile + c] = tile.weight[c * tile.width + j];
}

// fixed_width > 0: that width, known to the compiler.
template <int64_t fixed_width>
inline void convolve(const ConvTile& tile, const float* by_tap) {
  alignas(64) static const float zeros[conv_tile] = {};
  const int64_t width = fixed_width > 0 ? fixed_width : tile.width;
  const int64_t past = width - 1;
  for (int64_t t = 0; t < tile.rows; ++t) {
    const float* taps[widest_conv];
    for (int64_t j = 0; j < width; ++j) {
      const int64_t row = t - past + j;
      taps[j] = row >= 0                   ? tile.x + row * tile.x_stride
                : tile.state_in == nullptr ? zeros
                                           : tile.state_in + (row + past) * tile.state_stride;
    }
    float* y = tile.y + t * tile.y_stride;
    int64_t c = 0;
    for (; c + lanes <= tile.channels; c += lanes) {
      Vector sum = zero();
#pragma GCC unroll 4
      for (int64_t j = 0; j < width; ++j)
        sum = fma(load(by_tap + j * conv_tile + c), load(taps[j] + c), sum);
      store(y + c, silu(sum));
    }
    if (c < tile.channels) {
      const int64_t n = tile.channels - c;
      Vector sum = zero();
      for (int64_t j = 0; j < width; ++j)
        sum = fma(load_first(by_tap + j * conv_tile + c, n), load_first(taps[j] + c, n), sum);
      store_first(y + c, silu(sum), n);
    }
  }
}

inline void causal_conv_tile_vector(const ConvTile& tile) {
  if (tile.width > widest_conv) return causal_conv_tile_scalar(tile);
  alignas(64) float by_tap[widest_conv * conv_tile];
  transpose_weights(tile, by_tap);
  tile.width == 4 ? convolve<4>(tile, by_tap) : convolve<0>(tile, by_tap);
}

}  // namespace
}  // namespace qnext::ops
