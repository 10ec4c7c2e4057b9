#include "tensor/write_levels.h"

#include <array>

#include "tensor/dtype.h"

namespace qnext {

namespace {

// `count` levels from value `first` on, as unsigned integers.
template <size_t count>
std::array<uint8_t, count> unsigned_levels(const LevelFit& fit, int first, int low) {
  std::array<uint8_t, count> out;
  const auto offset = static_cast<float>(low);
  for (size_t i = 0; i < count; ++i)
    out[i] = static_cast<uint8_t>(fit.levels[static_cast<size_t>(first) + i] - offset);
  return out;
}

// The indices of levels in iq4_levels.
template <size_t count>
std::array<uint8_t, count> level_indices(const LevelFit& fit, int first) {
  static constexpr auto indices = [] {
    std::array<uint8_t, 256> table{};
    for (uint8_t i = 0; i < 16; ++i) table[static_cast<size_t>(iq4_levels[i] + 128)] = i;
    return table;
  }();
  std::array<uint8_t, count> out;
  for (size_t i = 0; i < count; ++i)
    out[i] = indices[static_cast<size_t>(fit.levels[static_cast<size_t>(first) + i] + 128.0f)];
  return out;
}

// The low 4 bits of 32 values: byte i holds values i and i + distance.
void write_nibbles(const uint8_t* levels, size_t distance, uint8_t* qs) {
  for (size_t i = 0; i < distance; ++i)
    qs[i] = static_cast<uint8_t>((levels[i] & 15) | (levels[i + distance] & 15) << 4);
}
void write_fifth_bits(const std::array<uint8_t, 32>& levels, uint8_t (&high)[4]) {
  for (uint8_t& byte : high) byte = 0;
  for (size_t i = 0; i < 32; ++i)
    high[i / 8] = static_cast<uint8_t>(high[i / 8] | (levels[i] >> 4) << (i % 8));
}

// The low 4 bits of 256 values, 64 to 32 bytes: q4_k, q5_k.
void write_four_bits(const std::array<uint8_t, 256>& levels, uint8_t (&qs)[128]) {
  for (size_t group = 0; group < 4; ++group)
    write_nibbles(levels.data() + 64 * group, 32, qs + 32 * group);
}

// The low 2 bits of 256 values: q2_k, q3_k.
void write_two_bits(const std::array<uint8_t, 256>& levels, uint8_t (&qs)[64]) {
  for (size_t half = 0; half < 2; ++half)
    for (size_t i = 0; i < 32; ++i) {
      const uint8_t* at = levels.data() + 128 * half + i;
      qs[32 * half + i] = static_cast<uint8_t>((at[0] & 3) | (at[32] & 3) << 2 | (at[64] & 3) << 4 |
                                               (at[96] & 3) << 6);
    }
}

// Bit `bit` of value 32 j + i to bit j of high[i]: q3_k, q5_k.
void write_high_bits(const std::array<uint8_t, 256>& levels, int bit, uint8_t (&high)[32]) {
  for (size_t i = 0; i < 32; ++i) {
    int bits = 0;
    for (size_t j = 0; j < 8; ++j) bits |= (levels[32 * j + i] >> bit & 1) << j;
    high[i] = static_cast<uint8_t>(bits);
  }
}

// Scales and minima of 6 bits: q4_k, q5_k.
void write_run_factors(const LevelFit& fit, uint8_t (&scales)[12]) {
  for (int run = 0; run < 4; ++run) {
    const int scale = fit.scales[run + 4], least = fit.leasts[run + 4];
    scales[run] = static_cast<uint8_t>(fit.scales[run] | scale >> 4 << 6);
    scales[run + 4] = static_cast<uint8_t>(fit.leasts[run] | least >> 4 << 6);
    scales[run + 8] = static_cast<uint8_t>((scale & 15) | (least & 15) << 4);
  }
}

template <typename Block>
void write_factors(const LevelFit& fit, Block& block) {
  block.d = float_to_f16(fit.d[0]);
  block.minimum = float_to_f16(fit.minimum[0]);
}

}  // namespace

void write_levels(const LevelFit& fit, int index, BlockQ8_0& block) {
  block.d = float_to_f16(fit.d[index]);
  for (int i = 0; i < block_values; ++i)
    block.qs[i] = static_cast<int8_t>(fit.levels[block_values * index + i]);
}

void write_levels(const LevelFit& fit, int index, BlockQ4_0& block) {
  block.d = float_to_f16(fit.d[index]);
  write_nibbles(unsigned_levels<32>(fit, 32 * index, -8).data(), 16, block.qs);
}

void write_levels(const LevelFit& fit, int index, BlockQ4_1& block) {
  block.d = float_to_f16(fit.d[index]);
  block.minimum = float_to_f16(-fit.minimum[index]);
  write_nibbles(unsigned_levels<32>(fit, 32 * index, 0).data(), 16, block.qs);
}

void write_levels(const LevelFit& fit, int index, BlockQ5_0& block) {
  block.d = float_to_f16(fit.d[index]);
  const auto levels = unsigned_levels<32>(fit, 32 * index, -16);
  write_nibbles(levels.data(), 16, block.qs);
  write_fifth_bits(levels, block.high);
}

void write_levels(const LevelFit& fit, int index, BlockQ5_1& block) {
  block.d = float_to_f16(fit.d[index]);
  block.minimum = float_to_f16(-fit.minimum[index]);
  const auto levels = unsigned_levels<32>(fit, 32 * index, 0);
  write_nibbles(levels.data(), 16, block.qs);
  write_fifth_bits(levels, block.high);
}

void write_levels(const LevelFit& fit, int index, BlockIQ4_NL& block) {
  block.d = float_to_f16(fit.d[index]);
  write_nibbles(level_indices<32>(fit, 32 * index).data(), 16, block.qs);
}

void write_levels(const LevelFit& fit, int, BlockQ2_K& block) {
  write_factors(fit, block);
  for (int run = 0; run < 16; ++run)
    block.scales[run] = static_cast<uint8_t>(fit.scales[run] | fit.leasts[run] << 4);
  write_two_bits(unsigned_levels<256>(fit, 0, 0), block.qs);
}

void write_levels(const LevelFit& fit, int, BlockQ3_K& block) {
  block.d = float_to_f16(fit.d[0]);
  for (uint8_t& byte : block.scales) byte = 0;
  for (int run = 0; run < 16; ++run) {
    const int scale = fit.scales[run] + 32;
    uint8_t& low = block.scales[run % 8];
    low = static_cast<uint8_t>(low | (scale & 15) << (run / 8 * 4));
    uint8_t& high = block.scales[8 + run % 4];
    high = static_cast<uint8_t>(high | scale >> 4 << (run / 4 * 2));
  }
  const auto levels = unsigned_levels<256>(fit, 0, -4);
  write_two_bits(levels, block.qs);
  write_high_bits(levels, 2, block.high);
}

void write_levels(const LevelFit& fit, int, BlockQ4_K& block) {
  write_factors(fit, block);
  write_run_factors(fit, block.scales);
  write_four_bits(unsigned_levels<256>(fit, 0, 0), block.qs);
}

void write_levels(const LevelFit& fit, int, BlockQ5_K& block) {
  write_factors(fit, block);
  write_run_factors(fit, block.scales);
  const auto levels = unsigned_levels<256>(fit, 0, 0);
  write_four_bits(levels, block.qs);
  write_high_bits(levels, 4, block.high);
}

void write_levels(const LevelFit& fit, int, BlockQ6_K& block) {
  block.d = float_to_f16(fit.d[0]);
  for (int run = 0; run < 16; ++run) block.scales[run] = static_cast<int8_t>(fit.scales[run]);
  const auto levels = unsigned_levels<256>(fit, 0, -32);
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t* of_half = levels.data() + 128 * half;
    write_nibbles(of_half, 64, block.qs + 64 * half);
    for (size_t i = 0; i < 32; ++i)
      block.high[32 * half + i] =
          static_cast<uint8_t>(of_half[i] >> 4 | of_half[32 + i] >> 4 << 2 |
                               of_half[64 + i] >> 4 << 4 | of_half[96 + i] >> 4 << 6);
  }
}

void write_levels(const LevelFit& fit, int, BlockIQ4_XS& block) {
  block.d = float_to_f16(fit.d[0]);
  int high = 0;
  for (uint8_t& byte : block.scales_low) byte = 0;
  for (int run = 0; run < 8; ++run) {
    const int scale = fit.scales[run] + 32;
    uint8_t& low = block.scales_low[run / 2];
    low = static_cast<uint8_t>(low | (scale & 15) << (run % 2 * 4));
    high |= scale >> 4 << (2 * run);
    write_nibbles(level_indices<32>(fit, 32 * run).data(), 16, block.qs + 16 * run);
  }
  block.scales_high = static_cast<uint16_t>(high);
}

}  // namespace qnext
