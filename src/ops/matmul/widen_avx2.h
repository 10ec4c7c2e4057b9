// Eight stored values to floats, AVX2. Included by AVX2 files only, hence the unnamed namespace.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace qnext::ops::avx2 {
namespace {

constexpr int64_t lanes = 8;

struct F32 {
  static constexpr int64_t bytes = 4;
  static __m256 load(const uint8_t* p) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  }
};

struct F16 {
  static constexpr int64_t bytes = 2;
  static __m256 load(const uint8_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
};

struct Bf16 {
  static constexpr int64_t bytes = 2;
  static __m256 load(const uint8_t* p) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
};

// 16 values. Gives e4m3 * 2^-8, exactly: sign, exponent and mantissa moved to where f16 has them,
// whose bias is larger by 8, subnormals included. NaN (all ones) becomes f16 NaN. The scale takes
// the 2^8.
struct F8 {
  static constexpr int64_t bytes = 1;
  struct Pair {
    __m256 low, high;
  };
  static Pair load_pair(const uint8_t* p) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m256i shifted = _mm256_slli_epi16(_mm256_cvtepu8_epi16(codes), 7);
    // Adding the sign to itself moves it up by the one place that is missing.
    const __m256i half =
        _mm256_add_epi16(shifted, _mm256_and_si256(shifted, _mm256_set1_epi16(0x4000)));
    const __m256i ones = _mm256_set1_epi16(0x3F80);
    const __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(half, ones), ones);
    const __m256i halves = _mm256_or_si256(half, nan);
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  }
};

}  // namespace
}  // namespace qnext::ops::avx2
