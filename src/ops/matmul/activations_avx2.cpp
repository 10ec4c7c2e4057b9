// Activations to int8 blocks, AVX2.
#include <immintrin.h>

#include "ops/matmul/kernels.h"

namespace qnext::ops::avx2 {

namespace {

inline int32_t sum_of(__m256i eight) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
}

}  // namespace

void quantize(const float* x, int64_t blocks, layout::ActivationBlock* out) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  for (; blocks > 0; --blocks, x += layout::block, ++out) {
    __m256 values[4];
    __m256i largest_lanes = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      values[i] = _mm256_loadu_ps(x + 8 * i);
      largest_lanes = _mm256_max_epu32(largest_lanes,
                                       _mm256_and_si256(_mm256_castps_si256(values[i]), magnitude));
    }
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(largest_lanes),
                                 _mm256_extracti128_si256(largest_lanes, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4E));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xB1));
    const auto bits = static_cast<uint32_t>(_mm_cvtsi128_si32(four));
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    const bool finite = bits < 0x7F800000;
    if (!finite || largest < layout::smallest_magnitude) {
      *out = {};
      out->scale = finite ? 0.0f : __builtin_nanf("");
      continue;
    }
    const __m256 inverse = _mm256_set1_ps(127.0f / largest);
    __m256i integers[4];
    for (int i = 0; i < 4; ++i) integers[i] = _mm256_cvtps_epi32(_mm256_mul_ps(values[i], inverse));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(integers[0], integers[1]),
                                             _mm256_packs_epi32(integers[2], integers[3]));
    // The packs work in halves of the register: put the dwords back in order.
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(out->quants),
        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    const int32_t low_sum = sum_of(_mm256_add_epi32(integers[0], integers[1]));
    const int32_t high_sum = sum_of(_mm256_add_epi32(integers[2], integers[3]));
    out->scale = largest / 127.0f;
    out->offset = out->scale * static_cast<float>(low_sum + high_sum);
    out->sum = -8 * (low_sum + high_sum);
    out->half_sums[0] = static_cast<int16_t>(low_sum);
    out->half_sums[1] = static_cast<int16_t>(high_sum);
  }
}

}  // namespace qnext::ops::avx2
