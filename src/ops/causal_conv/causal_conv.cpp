#include "ops/causal_conv/causal_conv.h"

#include <algorithm>
#include <cstring>

#include "base/cpu_features.h"
#include "ops/causal_conv/causal_conv_kernels.h"

namespace qnext::ops {

namespace {

constexpr IsaTable<ConvKernel> kernels{causal_conv_tile_scalar, causal_conv_tile_avx2,
                                       causal_conv_tile_avx512};

// Writes the state after row t of a tile. Rows ascend, so state_out may be state_in: each copy
// reads a row behind the one it writes.
void write_state(const ConvTile& tile, int64_t t, float* state) {
  const int64_t past = tile.width - 1;
  const size_t bytes = static_cast<size_t>(tile.channels) * sizeof(float);
  for (int64_t j = 0; j < past; ++j) {
    const int64_t row = t - past + 1 + j;
    float* to = state + j * tile.state_stride;
    if (row >= 0)
      std::memcpy(to, tile.x + row * tile.x_stride, bytes);
    else if (tile.state_in != nullptr)
      std::memmove(to, tile.state_in + (row + past) * tile.state_stride, bytes);
    else
      std::memset(to, 0, bytes);
  }
}

}  // namespace

void causal_conv(ThreadPool& pool, const float* x, int64_t x_stride, const float* weight,
                 int64_t channels, int64_t width, std::span<const ConvSequence> sequences, float* y,
                 int64_t y_stride) {
  const ConvKernel kernel = kernels.choose();
  const int64_t tiles = (channels + conv_tile - 1) / conv_tile;
  const int64_t items = tiles * static_cast<int64_t>(sequences.size());
  const int64_t grain = std::max<int64_t>(1, items / (8 * pool.size()));
  pool.parallel_for(items, grain, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const ConvSequence& sequence = sequences[static_cast<size_t>(item / tiles)];
      const int64_t first = item % tiles * conv_tile;
      ConvTile tile;
      tile.x = x + sequence.first_row * x_stride + first;
      tile.x_stride = x_stride;
      tile.state_in = sequence.state_in ? sequence.state_in + first : nullptr;
      tile.state_stride = channels;
      tile.weight = weight + first * width;
      tile.width = width;
      tile.channels = std::min(conv_tile, channels - first);
      tile.rows = sequence.rows;
      tile.y = y + sequence.first_row * y_stride + first;
      tile.y_stride = y_stride;
      kernel(tile);
      if (sequence.state_out == nullptr) continue;
      for (int64_t t = 0; t < sequence.rows; ++t)
        if (sequence.state_out[t]) write_state(tile, t, sequence.state_out[t] + first);
    }
  });
}

}  // namespace qnext::ops
