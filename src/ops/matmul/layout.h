// How quantised weights and activations lie in memory: shared by packing and by every kernel.
//
// Weights: panels of 16 output rows, one row a SIMD lane. A panel holds the published blocks of its
// rows as they are, transposed: field after field, and each field of 16 rows together. The 16-bit
// fields of a block (its f16 factors; iq4_xs: also scales_high) are its `halves`, all else its
// `dwords`, in the order in which products first read them (Order). A cache line's worth of halves
// makes a unit, of one block a row or of two:
//   halves  [blocks][halves of the block][16 rows]   2 bytes, 64 bytes in all
//   dwords  [blocks][dwords of the block][16 rows]   4 bytes
// Units keep every 64-byte load inside one cache line, and the whole matrix one forward stream. An
// odd last block has a zero neighbour, which is never read. q8_0 bytes are q + 128, the unsigned
// operand that the kernels want.
//
// Activations: one row after another, each of ActivationBlock [columns / 32].
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace qnext::ops::layout {

constexpr int64_t panel_rows = 16;
constexpr int64_t line = 64;                     // a cache line; a dword of 16 rows
constexpr int64_t half_bytes = panel_rows * 2;   // a half of 16 rows
constexpr int64_t dword_bytes = panel_rows * 4;  // a dword of 16 rows

// How the dwords of a block follow each other. Memory is fast where it is read in order.
enum class Order {
  published,
  scales_first,  // q3_k, whose scales end the published block
  q6_k,          // scales; the high bits of 128 columns and their low ones; those of the other 128
};

// The blocks of one format.
struct Format {
  int64_t columns;
  int64_t halves;    // 1 or 2
  bool halves_last;  // the halves end the published block; else they begin it
  int64_t dwords;
  uint32_t flip = 0;  // what the dwords are combined with by exclusive or
  Order order = Order::published;
};
constexpr Format q8_0{32, 1, false, 8, 0x80808080};
constexpr Format q4_0{32, 1, false, 4};
constexpr Format q4_1{32, 2, false, 4};
constexpr Format q5_0{32, 1, false, 5};
constexpr Format q5_1{32, 2, false, 5};
constexpr Format iq4_nl{32, 1, false, 4};
constexpr Format q2_k{256, 2, true, 20};
constexpr Format q3_k{256, 1, true, 27, 0, Order::scales_first};
constexpr Format q4_k{256, 2, false, 35};
constexpr Format q5_k{256, 2, false, 43};
constexpr Format q6_k{256, 1, true, 52, 0, Order::q6_k};
constexpr Format iq4_xs{256, 2, false, 33};

static constexpr int64_t unit_blocks(const Format& format) {
  return line / (format.halves * half_bytes);
}
static constexpr int64_t unit_bytes(const Format& format) {
  return line + unit_blocks(format) * format.dwords * dword_bytes;
}
static constexpr int64_t panel_bytes(const Format& format, int64_t columns) {
  const int64_t blocks = columns / format.columns;
  return (blocks + unit_blocks(format) - 1) / unit_blocks(format) * unit_bytes(format);
}
// Where block b's halves and dwords start in its panel.
static constexpr int64_t halves_at(const Format& format, int64_t b) {
  return b / unit_blocks(format) * unit_bytes(format) +
         b % unit_blocks(format) * format.halves * half_bytes;
}
static constexpr int64_t dwords_at(const Format& format, int64_t b) {
  return b / unit_blocks(format) * unit_bytes(format) + line +
         b % unit_blocks(format) * format.dwords * dword_bytes;
}

// q3_k: scales [3], the third bits [8], two bits of each 128 columns [2][8].
constexpr int64_t q3_k_scales = 3;
// q6_k: scales [4], then for each 128 columns two bits [8] and four [2][8].
constexpr int64_t q6_k_scales = 4;
constexpr int64_t q6_k_high = 8;
constexpr int64_t q6_k_low = 16;

// Which dword of a panel's block the published dword i is.
static constexpr int64_t dword_place(const Format& format, int64_t i) {
  if (format.order == Order::scales_first) return (i + q3_k_scales) % format.dwords;
  if (format.order == Order::published) return i;
  const int64_t low = 2 * q6_k_low, quants = low + 2 * q6_k_high;
  if (i >= quants) return i - quants;
  const int64_t each = i < low ? q6_k_low : q6_k_high, in_kind = i < low ? i : i - low;
  return q6_k_scales + in_kind / each * (q6_k_high + q6_k_low) + (i < low ? q6_k_high : 0) +
         in_kind % each;
}

constexpr int64_t block = 32;     // activations that share a scale
constexpr int64_t half_run = 16;  // the shortest run of weights that share one

// 32 activations x = scale * quant, and their sums: what stands for the constant part of weights.
struct ActivationBlock {
  int8_t quants[block];
  float scale;           // NaN where a value was not finite; the quants are then 0
  float offset;          // scale * sum of the quants, rounded once
  int32_t sum;           // -8 * sum of the quants
  int16_t half_sums[2];  // sums of the first and the last 16 quants
};
static_assert(sizeof(ActivationBlock) == 48);

// Bytes of one row of int8 activations, whole cache lines.
static constexpr int64_t activation_row_bytes(int64_t columns) {
  const auto bytes = static_cast<int64_t>(sizeof(ActivationBlock));
  return (columns / block * bytes + line - 1) / line * line;
}

// Below this the inverse scale would overflow: the block is taken as zero.
constexpr float smallest_magnitude = 0x1p-100f;

}  // namespace qnext::ops::layout
