// How quantised weights and activations lie in memory: shared by packing and by every kernel.
//
// Weights: panels of 16 output rows, one row a SIMD lane. Two blocks of 32 columns make a unit:
//   scales  [2 blocks][16 rows]                        f16
//   quants  [2 blocks][dword of the block][16 rows]    4 bytes
// dword j of a row's q4_0 block is bytes 4j .. 4j+3 of its published encoding: columns 4j .. 4j+3
// in the low nibbles, 16 + 4j .. in the high ones. A q8_0 byte is q + 128, so that both formats
// give an unsigned operand u, and sum(q x) = sum(u x) - offset * sum(x) with offset 8 or 128. Units
// keep every 64-byte load inside one cache line, and the whole matrix one forward stream. An odd
// last block has a zero neighbour, which is never read.
//
// Activations: one row after another, each
//   quants  [columns]  int8
//   scales  [blocks]   float, NaN where a value of the block was not finite
//   sums    [blocks]   int32, -8 * sum of the block's quants
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace qnext::ops::layout {

constexpr int64_t block = 32;
constexpr int64_t panel_rows = 16;
constexpr int64_t scale_bytes = panel_rows * 2;  // of one block

static constexpr int64_t quant_bytes(int bits) {
  return panel_rows * block * bits / 8;
}  // of one block
static constexpr int64_t unit_bytes(int bits) {
  return 2 * (scale_bytes + quant_bytes(bits));
}
static constexpr int64_t panel_bytes(int bits, int64_t columns) {
  return (columns / block + 1) / 2 * unit_bytes(bits);
}
// Where block b's scales and quants start in its panel.
static constexpr int64_t scales_at(int bits, int64_t b) {
  return b / 2 * unit_bytes(bits) + b % 2 * scale_bytes;
}
static constexpr int64_t quants_at(int bits, int64_t b) {
  return b / 2 * unit_bytes(bits) + 2 * scale_bytes + b % 2 * quant_bytes(bits);
}

// Bytes of one row of int8 activations, whole cache lines.
static constexpr int64_t activation_row_bytes(int64_t columns) {
  return (columns + columns / block * 8 + 63) / 64 * 64;
}

// Below this the inverse scale would overflow: the block is taken as zero.
constexpr float smallest_magnitude = 0x1p-100f;

}  // namespace qnext::ops::layout
