// The quantised formats of GGUF with blocks of 256 values ("K-quants" and IQ4_XS), exactly as
// published. A block is cut into runs of 16 or 32 values; each run has a small integer scale (and
// minimum) that multiplies the block's f16 d (and minimum). Products are in fp32, d * scale first.
#pragma once

#include <cstdint>

#include "tensor/blocks.h"

namespace qnext {

constexpr int super_block_values = 256;

// 16 runs of 16: value = (d * (scales[run] & 15)) * q - minimum * (scales[run] >> 4), q of 2 bits.
// Byte i of half h (32 bytes each) holds values 128 h + i, + 32, + 64, + 96, from the low bits up.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d;
  uint16_t minimum;
};
static_assert(sizeof(BlockQ2_K) == 84);

// 16 runs of 16: value = (d * (scale[run] - 32)) * (q - (4 where the high bit is clear)). The low 2
// bits of q lie as in q2_k; the high bit of value 32 j + i is bit j of high[i]. scale[run] has 6
// bits: 4 in the nibbles of scales[0..7] (low ones first), 2 in scales[8 + run % 4] from bit
// 2 * (run / 4) on.
struct BlockQ3_K {
  uint8_t high[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// 8 runs of 32: value = (d * scale[run]) * q - minimum * least[run], q of 4 bits: byte i of group g
// (32 bytes each) holds values 64 g + i (low) and 64 g + 32 + i (high). scale and least have 6
// bits: of runs 0..3 the low 6 bits of scales[run] and scales[run + 4]; of the others 4 bits in
// scales[run + 4] (scale low, least high) and the top 2 bits of scales[run - 4] and scales[run].
struct BlockQ4_K {
  uint16_t d;
  uint16_t minimum;
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// As q4_k with a fifth bit: of value 32 j + i, bit j of high[i].
struct BlockQ5_K {
  uint16_t d;
  uint16_t minimum;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// 16 runs of 16: value = (d * scales[run]) * (q - 32), q of 6 bits. In half h of 128 values, value
// 32 j + i has its low 4 bits in byte 64 h + 32 (j % 2) + i of qs (j < 2 low, else high) and 2 more
// in high[32 h + i] from bit 2 j on.
struct BlockQ6_K {
  uint8_t qs[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// 8 runs of 32, each with the levels and the nibbles of iq4_nl: value = (d * (scale[run] - 32)) *
// level. scale[run] has 6 bits: 4 in a nibble of scales_low (even runs low), 2 in scales_high from
// bit 2 * run on.
struct BlockIQ4_XS {
  uint16_t d;
  uint16_t scales_high;
  uint8_t scales_low[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

template <>
inline constexpr size_t values_of<BlockQ2_K> = super_block_values;
template <>
inline constexpr size_t values_of<BlockQ3_K> = super_block_values;
template <>
inline constexpr size_t values_of<BlockQ4_K> = super_block_values;
template <>
inline constexpr size_t values_of<BlockQ5_K> = super_block_values;
template <>
inline constexpr size_t values_of<BlockQ6_K> = super_block_values;
template <>
inline constexpr size_t values_of<BlockIQ4_XS> = super_block_values;

void split(const BlockQ2_K& block, BlockParts& parts);
void split(const BlockQ3_K& block, BlockParts& parts);
void split(const BlockQ4_K& block, BlockParts& parts);
void split(const BlockQ5_K& block, BlockParts& parts);
void split(const BlockQ6_K& block, BlockParts& parts);
void split(const BlockIQ4_XS& block, BlockParts& parts);

// The same values.
BlockQ5_K as_q5_k(const BlockQ4_K& block);

}  // namespace qnext
