#include "tensor/super_blocks.h"

#include "tensor/dtype.h"

namespace qnext {

namespace {

// The 2 bits of value i in 64 bytes: q2_k, q3_k.
int two_bits(const uint8_t (&qs)[64], int i) {
  return qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

// The 4 bits of value i in 128 bytes: q4_k, q5_k.
int four_bits(const uint8_t (&qs)[128], int i) {
  return qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
}

// The bit of value i in 32 bytes: q3_k, q5_k.
int high_bit(const uint8_t (&high)[32], int i) {
  return high[i % 32] >> (i / 32) & 1;
}

// Scale and minimum of a run of q4_k and q5_k.
struct RunFactors {
  int scale = 0;
  int least = 0;
};
RunFactors run_factors(const uint8_t (&scales)[12], int run) {
  if (run < 4) return {scales[run] & 63, scales[run + 4] & 63};
  return {(scales[run + 4] & 15) | scales[run - 4] >> 6 << 4,
          scales[run + 4] >> 4 | scales[run] >> 6 << 4};
}

int q3_k_scale(const uint8_t (&scales)[12], int run) {
  const int low = scales[run % 8] >> (run / 8 * 4) & 15;
  const int high = scales[8 + run % 4] >> (run / 4 * 2) & 3;
  return (low | high << 4) - 32;
}

// q4_k and q5_k: `bits` gives the integer of a value.
template <typename Block, typename Bits>
void decode_runs(const Block& block, float* values, Bits&& bits) {
  const float d = f16_to_float(block.d), minimum = f16_to_float(block.minimum);
  for (int run = 0; run < 8; ++run) {
    const RunFactors factors = run_factors(block.scales, run);
    const float scale = d * static_cast<float>(factors.scale);
    const float least = minimum * static_cast<float>(factors.least);
    for (int i = 32 * run; i < 32 * run + 32; ++i)
      values[i] = scale * static_cast<float>(bits(i)) - least;
  }
}

}  // namespace

void decode(const BlockQ2_K& block, float* values) {
  const float d = f16_to_float(block.d), minimum = f16_to_float(block.minimum);
  for (int run = 0; run < 16; ++run) {
    const float scale = d * static_cast<float>(block.scales[run] & 15);
    const float least = minimum * static_cast<float>(block.scales[run] >> 4);
    for (int i = 16 * run; i < 16 * run + 16; ++i)
      values[i] = scale * static_cast<float>(two_bits(block.qs, i)) - least;
  }
}

void decode(const BlockQ3_K& block, float* values) {
  const float d = f16_to_float(block.d);
  for (int run = 0; run < 16; ++run) {
    const float scale = d * static_cast<float>(q3_k_scale(block.scales, run));
    for (int i = 16 * run; i < 16 * run + 16; ++i) {
      const int q = two_bits(block.qs, i) - (high_bit(block.high, i) ? 0 : 4);
      values[i] = scale * static_cast<float>(q);
    }
  }
}

void decode(const BlockQ4_K& block, float* values) {
  decode_runs(block, values, [&](int i) { return four_bits(block.qs, i); });
}

void decode(const BlockQ5_K& block, float* values) {
  decode_runs(block, values,
              [&](int i) { return four_bits(block.qs, i) | high_bit(block.high, i) << 4; });
}

void decode(const BlockQ6_K& block, float* values) {
  const float d = f16_to_float(block.d);
  for (int i = 0; i < super_block_values; ++i) {
    const int half = i / 128, j = i % 128 / 32, at = i % 32;
    const int low = block.qs[64 * half + 32 * (j % 2) + at] >> (j / 2 * 4) & 15;
    const int high = block.high[32 * half + at] >> (2 * j) & 3;
    const int8_t factor = block.scales[i / 16];
    const float scale = d * static_cast<float>(factor);
    values[i] = scale * static_cast<float>((low | high << 4) - 32);
  }
}

void decode(const BlockIQ4_XS& block, float* values) {
  const float d = f16_to_float(block.d);
  for (int run = 0; run < 8; ++run) {
    const int low = block.scales_low[run / 2] >> (run % 2 * 4) & 15;
    const int high = block.scales_high >> (2 * run) & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    for (int i = 0; i < 16; ++i) {
      const uint8_t byte = block.qs[16 * run + i];
      values[32 * run + i] = scale * static_cast<float>(iq4_levels[byte & 15]);
      values[32 * run + 16 + i] = scale * static_cast<float>(iq4_levels[byte >> 4]);
    }
  }
}

}  // namespace qnext
