// Sums of doubles without any rounding, and what they are in a smaller format: what tests of
// rounding compare with.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace qnext::emulator {

enum class RoundTo { nearest_even, zero, down, up };

struct FloatFormat {
  int precision;  // significant bits
  int quantum;    // the smallest positive number is 2^quantum
  double largest;
};

constexpr FloatFormat f32_format{24, -149, 0x1.fffffep127};
constexpr FloatFormat bf16_format{8, -133, 0x1.fep127};
constexpr FloatFormat f16_format{11, -24, 65504};

class ExactSum {
 public:
  // value: finite, a multiple of 2^-320 and below 2^300.
  void add(double value) {
    if (value == 0) return;
    int exponent = 0;
    const double fraction = std::frexp(std::fabs(value), &exponent);
    const auto mantissa = static_cast<uint64_t>(std::ldexp(fraction, 53));
    int shift = exponent - 53 + unit;
    uint64_t low = mantissa, high = 0;
    if (shift < 0) {
      low >>= -shift;
      shift = 0;
    } else if (shift % 64 != 0) {
      high = mantissa >> (64 - shift % 64);
      low = mantissa << (shift % 64);
    }
    std::array<uint64_t, words> addend{};
    addend[static_cast<size_t>(shift / 64)] = low;
    addend[static_cast<size_t>(shift / 64) + 1] = high;
    if (value < 0) negate(addend);
    bool carry = false;
    for (size_t i = 0; i < words; ++i) {
      const uint64_t sum = sum_[i] + addend[i];
      const uint64_t with_carry = sum + (carry ? 1 : 0);
      carry = sum < addend[i] || with_carry < sum;
      sum_[i] = with_carry;
    }
  }

  double rounded(const FloatFormat& format, RoundTo mode) const {
    std::array<uint64_t, words> magnitude = sum_;
    const bool negative = sum_[words - 1] >> 63 != 0;
    if (negative) negate(magnitude);
    int length = words * 64;
    while (length > 0 && !bit(magnitude, length - 1)) --length;
    if (length == 0) return 0;
    const int dropped = std::max(length - format.precision, format.quantum + unit);
    uint64_t kept = 0;
    for (int i = length - 1; i >= dropped; --i) kept = kept << 1 | (bit(magnitude, i) ? 1u : 0u);
    const bool half = bit(magnitude, dropped - 1);
    bool rest = false;
    for (int i = 0; i < dropped - 1; ++i) rest = rest || bit(magnitude, i);
    bool away = half && (rest || (kept & 1) != 0);
    if (mode == RoundTo::zero) away = false;
    if (mode == RoundTo::down) away = negative && (half || rest);
    if (mode == RoundTo::up) away = !negative && (half || rest);
    double result = std::ldexp(static_cast<double>(kept + (away ? 1 : 0)), dropped - unit);
    if (result > format.largest) {
      const bool stays = mode == RoundTo::zero || (mode == RoundTo::down && !negative) ||
                         (mode == RoundTo::up && negative);
      result = stays ? format.largest : std::numeric_limits<double>::infinity();
    }
    return negative ? -result : result;
  }

 private:
  static constexpr int words = 10;
  static constexpr int unit = 320;  // the lowest bit is 2^-320

  static bool bit(const std::array<uint64_t, words>& number, int index) {
    return (number[static_cast<size_t>(index / 64)] >> (index % 64) & 1u) != 0;
  }
  static void negate(std::array<uint64_t, words>& number) {
    bool carry = true;
    for (uint64_t& word : number) {
      word = ~word + (carry ? 1 : 0);
      carry = carry && word == 0;
    }
  }

  std::array<uint64_t, words> sum_{};
};

}  // namespace qnext::emulator
