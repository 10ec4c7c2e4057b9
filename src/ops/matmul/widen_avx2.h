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

// Gives e4m3 * 2^-8, exactly: sign, exponent and mantissa moved to where f16 has them, whose bias
// is larger by 8, subnormals included. NaN (all ones) becomes f16 NaN. The scale takes the 2^8.
struct F8 {
  static constexpr int64_t bytes = 1;
  static __m256 load(const uint8_t* p) {
    const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i high = _mm_unpacklo_epi8(_mm_setzero_si128(), codes);
    const __m128i half =
        _mm_and_si128(_mm_srai_epi16(high, 1), _mm_set1_epi16(int16_t(0xBF80 - 0x10000)));
    const __m128i ones = _mm_set1_epi16(0x3F80);
    const __m128i nan = _mm_cmpeq_epi16(_mm_and_si128(half, ones), ones);
    return _mm256_cvtph_ps(_mm_or_si128(half, _mm_and_si128(nan, _mm_set1_epi16(0x7E00))));
  }
};

}  // namespace
}  // namespace qnext::ops::avx2
