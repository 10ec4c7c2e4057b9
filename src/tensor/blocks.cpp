#include "tensor/blocks.h"

#include <algorithm>
#include <cmath>

#include "tensor/dtype.h"

namespace qnext {

namespace {

// Of a scale whose inverse is not finite the block is zero (or, like the scale, infinite) anyway.
float inverse_of(float d) {
  const float inverse = 1.0f / d;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

// A value in steps of d. What is not a number counts as zero: no encoding has one.
float scaled(float value, float inverse) {
  const float steps = value * inverse;
  return std::isnan(steps) ? 0.0f : steps;
}

// The 4 bits of value i: the low halves of 16 bytes, then the high ones.
int nibble(const uint8_t (&qs)[16], int i) {
  return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}
int five_bits(const uint8_t (&qs)[16], const uint8_t (&high)[4], int i) {
  return nibble(qs, i) | (high[i / 8] >> (i % 8) & 1) << 4;
}

void set_factors(BlockParts& parts, uint16_t d) {
  parts.run = block_values;
  parts.has_minimums = false;
  parts.scales[0] = f16_to_float(d);
}
void set_factors(BlockParts& parts, uint16_t d, uint16_t minimum) {
  set_factors(parts, d);
  parts.has_minimums = true;
  parts.minimums[0] = f16_to_float(minimum);
}

template <typename Quant>
void set_quants(BlockParts& parts, Quant&& quant) {
  for (int i = 0; i < block_values; ++i) parts.quants[i] = static_cast<int8_t>(quant(i));
}

}  // namespace

void encode(const float* values, BlockQ8_0& block) {
  float largest = 0;
  for (int i = 0; i < block_values; ++i) largest = std::max(largest, std::abs(values[i]));
  const float d = largest / 127.0f;
  const float inverse = inverse_of(d);
  block.d = float_to_f16(d);
  for (int i = 0; i < block_values; ++i)
    block.qs[i] = static_cast<int8_t>(std::round(scaled(values[i], inverse)));
}

void encode(const float* values, BlockQ4_0& block) {
  float extreme = 0;
  for (int i = 0; i < block_values; ++i)
    if (std::abs(values[i]) > std::abs(extreme)) extreme = values[i];
  const float d = extreme / -8.0f;
  const float inverse = inverse_of(d);
  block.d = float_to_f16(d);
  const auto quantize = [&](float value) {
    return std::min(15, static_cast<int>(scaled(value, inverse) + 8.5f));
  };
  for (int i = 0; i < block_values / 2; ++i)
    block.qs[i] =
        static_cast<uint8_t>(quantize(values[i]) | quantize(values[i + block_values / 2]) << 4);
}

void split(const BlockQ8_0& block, BlockParts& parts) {
  set_factors(parts, block.d);
  std::copy_n(block.qs, block_values, parts.quants);
}

void split(const BlockQ4_0& block, BlockParts& parts) {
  set_factors(parts, block.d);
  set_quants(parts, [&](int i) { return nibble(block.qs, i) - 8; });
}

void split(const BlockQ4_1& block, BlockParts& parts) {
  set_factors(parts, block.d, block.minimum);
  set_quants(parts, [&](int i) { return nibble(block.qs, i); });
}

void split(const BlockQ5_0& block, BlockParts& parts) {
  set_factors(parts, block.d);
  set_quants(parts, [&](int i) { return five_bits(block.qs, block.high, i) - 16; });
}

void split(const BlockQ5_1& block, BlockParts& parts) {
  set_factors(parts, block.d, block.minimum);
  set_quants(parts, [&](int i) { return five_bits(block.qs, block.high, i); });
}

void split(const BlockIQ4_NL& block, BlockParts& parts) {
  set_factors(parts, block.d);
  set_quants(parts, [&](int i) { return iq4_levels[nibble(block.qs, i)]; });
}

void widen(const BlockParts& parts, size_t count, float* values) {
  const auto run = static_cast<size_t>(parts.run);
  for (size_t first = 0; first < count; first += run) {
    const float scale = parts.scales[first / run];
    const int8_t* quants = parts.quants + first;
    for (size_t i = 0; i < run; ++i) values[first + i] = scale * static_cast<float>(quants[i]);
    if (!parts.has_minimums) continue;
    const float minimum = parts.minimums[first / run];
    for (size_t i = 0; i < run; ++i) values[first + i] += minimum;
  }
}

}  // namespace qnext
