#include "tensor/super_blocks.h"

#include <algorithm>
#include <iterator>

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

template <typename Quant>
void set_quants(BlockParts& parts, Quant&& quant) {
  for (int i = 0; i < super_block_values; ++i) parts.quants[i] = static_cast<int8_t>(quant(i));
}

// factors(run) gives what d and minimum are multiplied with.
template <typename Block, typename Factors>
void set_scales_and_minimums(BlockParts& parts, const Block& block, int run, Factors&& factors) {
  const float d = f16_to_float(block.d), minimum = f16_to_float(block.minimum);
  parts.run = run;
  parts.has_minimums = true;
  for (int r = 0; r < super_block_values / run; ++r) {
    const RunFactors integers = factors(r);
    parts.scales[r] = d * static_cast<float>(integers.scale);
    parts.minimums[r] = -(minimum * static_cast<float>(integers.least));
  }
}

template <typename Block, typename Factor>
void set_scales(BlockParts& parts, const Block& block, int run, Factor&& factor) {
  const float d = f16_to_float(block.d);
  parts.run = run;
  parts.has_minimums = false;
  for (int r = 0; r < super_block_values / run; ++r)
    parts.scales[r] = d * static_cast<float>(static_cast<int>(factor(r)));
}

}  // namespace

void split(const BlockQ2_K& block, BlockParts& parts) {
  set_scales_and_minimums(parts, block, 16, [&](int run) {
    return RunFactors{block.scales[run] & 15, block.scales[run] >> 4};
  });
  set_quants(parts, [&](int i) { return two_bits(block.qs, i); });
}

void split(const BlockQ3_K& block, BlockParts& parts) {
  set_scales(parts, block, 16, [&](int run) { return q3_k_scale(block.scales, run); });
  set_quants(parts,
             [&](int i) { return two_bits(block.qs, i) - (high_bit(block.high, i) ? 0 : 4); });
}

void split(const BlockQ4_K& block, BlockParts& parts) {
  set_scales_and_minimums(parts, block, 32,
                          [&](int run) { return run_factors(block.scales, run); });
  set_quants(parts, [&](int i) { return four_bits(block.qs, i); });
}

void split(const BlockQ5_K& block, BlockParts& parts) {
  set_scales_and_minimums(parts, block, 32,
                          [&](int run) { return run_factors(block.scales, run); });
  set_quants(parts, [&](int i) { return four_bits(block.qs, i) | high_bit(block.high, i) << 4; });
}

void split(const BlockQ6_K& block, BlockParts& parts) {
  set_scales(parts, block, 16, [&](int run) { return block.scales[run]; });
  set_quants(parts, [&](int i) {
    const int half = i / 128, j = i % 128 / 32, at = i % 32;
    const int low = block.qs[64 * half + 32 * (j % 2) + at] >> (j / 2 * 4) & 15;
    const int high = block.high[32 * half + at] >> (2 * j) & 3;
    return (low | high << 4) - 32;
  });
}

void split(const BlockIQ4_XS& block, BlockParts& parts) {
  set_scales(parts, block, 32, [&](int run) {
    const int low = block.scales_low[run / 2] >> (run % 2 * 4) & 15;
    const int high = block.scales_high >> (2 * run) & 3;
    return (low | high << 4) - 32;
  });
  set_quants(parts, [&](int i) {
    const uint8_t byte = block.qs[i / 32 * 16 + i % 16];
    return iq4_levels[i % 32 < 16 ? byte & 15 : byte >> 4];
  });
}

BlockQ5_K as_q5_k(const BlockQ4_K& block) {
  BlockQ5_K wider{block.d, block.minimum, {}, {}, {}};
  std::copy(std::begin(block.scales), std::end(block.scales), wider.scales);
  std::copy(std::begin(block.qs), std::end(block.qs), wider.qs);
  return wider;
}

}  // namespace qnext
