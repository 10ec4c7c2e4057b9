#include <cmath>

#include "ops/activation/activation.h"
#include "ops/causal_conv/causal_conv_kernels.h"

namespace qnext::ops {

void causal_conv_tile_scalar(const ConvTile& tile) {
  const int64_t past = tile.width - 1;
  for (int64_t t = 0; t < tile.rows; ++t) {
    float sum[conv_tile] = {};
    for (int64_t j = 0; j < tile.width; ++j) {
      const int64_t row = t - past + j;
      if (row < 0 && tile.state_in == nullptr) continue;
      const float* x =
          row < 0 ? tile.state_in + (row + past) * tile.state_stride : tile.x + row * tile.x_stride;
      for (int64_t c = 0; c < tile.channels; ++c) sum[c] += tile.weight[c * tile.width + j] * x[c];
    }
    float* y = tile.y + t * tile.y_stride;
    for (int64_t c = 0; c < tile.channels; ++c) y[c] = silu(sum[c]);
  }
}

}  // namespace qnext::ops
