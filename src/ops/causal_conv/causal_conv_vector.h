// The tile kernel on the Vector of whichever activation/vector_*.h was included before.
#pragma once

#include "ops/activation/vector_exp.h"
#include "ops/causal_conv/causal_conv_kernels.h"

namespace qnext::ops {
namespace {

constexpr int64_t widest_conv = 16;  // wider ones, which no model has, take the scalar kernel

inline void causal_conv_tile_vector(const ConvTile& tile) {
  if (tile.width > widest_conv) return causal_conv_tile_scalar(tile);
  // Weights by tap, so that channels lie side by side; zeros for missing states.
  alignas(64) float weight[widest_conv * conv_tile];
  alignas(64) static const float zeros[conv_tile] = {};
  for (int64_t c = 0; c < tile.channels; ++c)
    for (int64_t j = 0; j < tile.width; ++j)
      weight[j * conv_tile + c] = tile.weight[c * tile.width + j];

  const int64_t past = tile.width - 1;
  for (int64_t t = 0; t < tile.rows; ++t) {
    const float* taps[widest_conv];
    for (int64_t j = 0; j < tile.width; ++j) {
      const int64_t row = t - past + j;
      taps[j] = row >= 0                   ? tile.x + row * tile.x_stride
                : tile.state_in == nullptr ? zeros
                                           : tile.state_in + (row + past) * tile.state_stride;
    }
    float* y = tile.y + t * tile.y_stride;
    int64_t c = 0;
    for (; c + lanes <= tile.channels; c += lanes) {
      Vector sum = zero();
      for (int64_t j = 0; j < tile.width; ++j)
        sum = fma(load(weight + j * conv_tile + c), load(taps[j] + c), sum);
      store(y + c, silu(sum));
    }
    if (c < tile.channels) {
      const int64_t n = tile.channels - c;
      Vector sum = zero();
      for (int64_t j = 0; j < tile.width; ++j)
        sum = fma(load_first(weight + j * conv_tile + c, n), load_first(taps[j] + c, n), sum);
      store_first(y + c, silu(sum), n);
    }
  }
}

}  // namespace
}  // namespace qnext::ops
