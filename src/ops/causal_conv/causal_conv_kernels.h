// The variants of the tile kernel, one an instruction set; causal_conv.cpp chooses.
#pragma once

#include <stdint.h>

namespace qnext::ops {

// Channels of a tile: 1 KiB of each row, so that rows stream, and few enough for all threads to
// have some of one token.
constexpr int64_t conv_tile = 256;

// `channels` <= conv_tile channels of one sequence. weight [channels, width].
struct ConvTile {
  const float* x = nullptr;  // row 0 of this sequence and tile
  int64_t x_stride = 0;
  const float* state_in = nullptr;  // [width - 1, state_stride], or null for zeros
  int64_t state_stride = 0;
  const float* weight = nullptr;
  int64_t width = 0;
  int64_t channels = 0;
  int64_t rows = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};
using ConvKernel = void (*)(const ConvTile& tile);

void causal_conv_tile_scalar(const ConvTile& tile);
void causal_conv_tile_avx2(const ConvTile& tile);
void causal_conv_tile_avx512(const ConvTile& tile);

}  // namespace qnext::ops
