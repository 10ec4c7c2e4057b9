// Activations to int8 blocks, AVX-512.
#include <immintrin.h>

#include "ops/matmul/kernels.h"

namespace qnext::ops::avx512 {

void quantize(const float* x, int64_t blocks, layout::ActivationBlock* out) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  for (; blocks > 0; --blocks, x += layout::block, ++out) {
    const __m512 low = _mm512_loadu_ps(x);
    const __m512 high = _mm512_loadu_ps(x + 16);
    const uint32_t bits = _mm512_reduce_max_epu32(
        _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                         _mm512_and_si512(_mm512_castps_si512(high), magnitude)));
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    const bool finite = bits < 0x7F800000;
    if (!finite || largest < layout::smallest_magnitude) {
      *out = {};
      out->scale = finite ? 0.0f : __builtin_nanf("");
      continue;
    }
    const __m512 inverse = _mm512_set1_ps(127.0f / largest);
    const __m512i low_quants = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
    const __m512i high_quants = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    auto* quants = reinterpret_cast<__m128i*>(out->quants);
    _mm_storeu_si128(quants, _mm512_cvtepi32_epi8(low_quants));
    _mm_storeu_si128(quants + 1, _mm512_cvtepi32_epi8(high_quants));
    const int32_t low_sum = _mm512_reduce_add_epi32(low_quants);
    const int32_t high_sum = _mm512_reduce_add_epi32(high_quants);
    out->scale = largest / 127.0f;
    out->offset = out->scale * static_cast<float>(low_sum + high_sum);
    out->sum = -8 * (low_sum + high_sum);
    out->half_sums[0] = static_cast<int16_t>(low_sum);
    out->half_sums[1] = static_cast<int16_t>(high_sum);
  }
}

}  // namespace qnext::ops::avx512
