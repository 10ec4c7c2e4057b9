// The quantised block formats of GGUF, exactly as published, and their codecs.
#pragma once

#include <cstdint>

namespace qnext {

constexpr int block_values = 32;

// value[i] = d * qs[i]
struct BlockQ8_0 {
  uint16_t d;  // f16
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// value[i] = d * ((qs[i] & 15) - 8), value[i + 16] = d * ((qs[i] >> 4) - 8), 0 <= i < 16
struct BlockQ4_0 {
  uint16_t d;  // f16
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// One block of 32 values to its published encoding and back. q8_0: d = max|x| / 127, round to
// nearest, halves away from zero. q4_0: d = (the value of largest magnitude) / -8, q = min(15,
// floor(x / d + 8.5)). The quotients are taken before d is rounded to f16.
void encode(const float* values, BlockQ8_0& block);
void encode(const float* values, BlockQ4_0& block);
void decode(const BlockQ8_0& block, float* values);
void decode(const BlockQ4_0& block, float* values);

}  // namespace qnext
