// Floats of 8 and 16 bits, and sums rounded once into any format.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace qnext::emulator {

// What arithmetic on the GPU makes of NaN.
constexpr uint32_t canonical_nan = 0x7FFFFFFF;

inline float with_canonical_nan(float value) {
  return value == value ? value : std::bit_cast<float>(canonical_nan);
}

// ---- from ----

inline float float_from_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline float float_from_f16(uint16_t bits) {
  const uint32_t magnitude = (bits & 0x7FFFu) << 13;
  // The product moves the exponent to float's bias, and makes numbers of subnormals.
  const float finite = std::bit_cast<float>(magnitude) * 0x1p112f;
  uint32_t result = std::bit_cast<uint32_t>(finite);
  result = magnitude >= 0x0F800000u ? 0x7F800000u : result;
  result = magnitude > 0x0F800000u ? canonical_nan : result | (bits & 0x8000u) << 16;
  return std::bit_cast<float>(result);
}

// ---- to, nearest even ----

inline uint16_t bf16_from(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  return static_cast<uint16_t>(value == value ? rounded : 0x7FFFu);
}

inline uint16_t f16_from(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // Below 2^-14: the sum with 0.5, whose last place is 2^-24, rounds to f16's subnormals.
  const float shifted = std::bit_cast<float>(magnitude < 0x38800000u ? magnitude : 0u) + 0.5f;
  const uint32_t small = std::bit_cast<uint32_t>(shifted) - 0x3F000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  uint32_t result = magnitude < 0x38800000u ? small : normal;
  result = magnitude >= 0x47800000u ? 0x7C00u : result;
  result |= bits >> 16 & 0x8000u;
  return static_cast<uint16_t>(magnitude > 0x7F800000u ? 0x7FFFu : result);
}

// Beyond the largest number, 448, is the largest number.
inline uint8_t e4m3_from(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // Below 2^-6: the sum with 2^14, whose last place is 2^-9, rounds to subnormals.
  const float shifted = std::bit_cast<float>(magnitude < 0x3C800000u ? magnitude : 0u) + 0x1p14f;
  const uint32_t small = std::bit_cast<uint32_t>(shifted) - 0x46800000u;
  const uint32_t normal = (magnitude - 0x3C000000u + 0x7FFFFu + (magnitude >> 20 & 1u)) >> 20;
  uint32_t result = magnitude < 0x3C800000u ? small : normal;
  result = magnitude > 0x43E00000u ? 0x7Eu : result;
  result |= bits >> 24 & 0x80u;
  return static_cast<uint8_t>(magnitude > 0x7F800000u ? 0x7Fu : result);
}

constexpr std::array<uint16_t, 256> f16_of_e4m3 = [] {
  std::array<uint16_t, 256> table{};
  for (unsigned bits = 0; bits < 256; ++bits) {
    const unsigned exponent = bits >> 3 & 15u, mantissa = bits & 7u;
    unsigned half = 0;
    if ((bits & 0x7Fu) == 0x7Fu) {
      table[bits] = 0x7FFF;
      continue;
    }
    if (exponent != 0) {
      half = (exponent + 8) << 10 | mantissa << 7;
    } else if (mantissa != 0) {
      // mantissa * 2^-9, which f16 has as a normal number.
      const auto top = static_cast<unsigned>(std::bit_width(mantissa)) - 1;
      half = (top + 6) << 10 | ((mantissa << (10 - top)) & 0x3FFu);
    }
    table[bits] = static_cast<uint16_t>((bits & 0x80u) << 8 | half);
  }
  return table;
}();

// ---- rounded once ----

// a + b with the last bit set where it is not exact: such a sum can be rounded to any format with
// two bits less, in any mode, as the exact sum would be.
inline double add_to_odd(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double from_b = sum - a;
  const double error = (a - (sum - from_b)) + (b - from_b);
  uint64_t bits = std::bit_cast<uint64_t>(sum);
  if (error == 0 || (bits & 1) != 0) return sum;
  // An exact sum that is not a double is not zero.
  bits = (error > 0) == (sum > 0) ? bits + 1 : bits - 1;
  return std::bit_cast<double>(bits);
}

// a double as a float with the last bit set where it is not exact.
inline float float_to_odd(double value) {
  auto result = static_cast<float>(value);
  if (!std::isfinite(value) || static_cast<double>(result) == value) return result;
  uint32_t bits = std::bit_cast<uint32_t>(result);
  if (std::fabs(static_cast<double>(result)) > std::fabs(value)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

// a * b + c of floats with at most 16 significant bits, to be rounded to such a format.
inline float narrow_fma(float a, float b, float c) {
  return float_to_odd(add_to_odd(static_cast<double>(a) * static_cast<double>(b), c));
}

}  // namespace qnext::emulator
