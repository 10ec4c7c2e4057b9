// The quantised formats of GGUF with blocks of 32 values, exactly as published, and their codecs.
// d and minimum are f16; sums and products are in fp32, in the order that the formulas show.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qnext {

constexpr int block_values = 32;

// value[i] = d * qs[i]
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// value[i] = d * ((qs[i] & 15) - 8), value[i + 16] = d * ((qs[i] >> 4) - 8), 0 <= i < 16
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// value[i] = d * (qs[i] & 15) + minimum, value[i + 16] = d * (qs[i] >> 4) + minimum, 0 <= i < 16
struct BlockQ4_1 {
  uint16_t d;
  uint16_t minimum;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// value[i] = d * (q[i] - 16): the low 4 bits of q[i] lie as in q4_0, the fifth is bit i of the 32
// bits of `high` (byte i / 8, bit i % 8).
struct BlockQ5_0 {
  uint16_t d;
  uint8_t high[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// value[i] = d * q[i] + minimum, q as in q5_0
struct BlockQ5_1 {
  uint16_t d;
  uint16_t minimum;
  uint8_t high[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// As q4_0, but the 4 bits choose from 16 levels that are closer about zero.
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

constexpr int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

// Values of a block; super_blocks.h says it for its own.
template <typename Block>
inline constexpr size_t values_of = block_values;

// A block of any format taken apart: value[i] = scales[i / run] * quants[i], and where the format
// has minimums + minimums[i / run].
struct BlockParts {
  int run = 0;  // values that share a scale
  bool has_minimums = false;
  int8_t quants[256];
  float scales[16];
  float minimums[16];
};
void split(const BlockQ8_0& block, BlockParts& parts);
void split(const BlockQ4_0& block, BlockParts& parts);
void split(const BlockQ4_1& block, BlockParts& parts);
void split(const BlockQ5_0& block, BlockParts& parts);
void split(const BlockQ5_1& block, BlockParts& parts);
void split(const BlockIQ4_NL& block, BlockParts& parts);

// The values of parts, `count` of them.
void widen(const BlockParts& parts, size_t count, float* values);

// A block's values.
template <typename Block>
void decode(const Block& block, float* values) {
  BlockParts parts;
  split(block, parts);
  widen(parts, values_of<Block>, values);
}

// One block of 32 values to its published encoding. q8_0: d = max|x| / 127, round to nearest,
// halves away from zero. q4_0: d = (the value of largest magnitude) / -8, q = min(15, floor(x / d
// + 8.5)). The quotients are taken before d is rounded to f16.
void encode(const float* values, BlockQ8_0& block);
void encode(const float* values, BlockQ4_0& block);

}  // namespace qnext
