// swiglu and combine, AVX-512: the scalar kernels' operations, 16 lanes at a time.
#include <immintrin.h>

#include "ops/moe/moe_constants.h"
#include "ops/moe/moe_kernels.h"

namespace qnext::ops::avx512 {

namespace {

constexpr int64_t lanes = 16;

inline __mmask16 mask_of(int64_t left) {
  return left >= lanes ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1u << left) - 1);
}

inline __m512 exponential(__m512 x) {
  using namespace exp_constants;
  // The second operand is returned for NaN.
  x = _mm512_max_ps(_mm512_set1_ps(lowest), x);
  x = _mm512_min_ps(_mm512_set1_ps(highest), x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(log2_e)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(ln2_low),
                                    _mm512_fnmadd_ps(n, _mm512_set1_ps(ln2_high), x));
  __m512 p = _mm512_set1_ps(coefficients[0]);
#pragma GCC unroll 8
  for (int i = 1; i < terms; ++i) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficients[i]));
  const __m512i power =
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  return _mm512_mul_ps(p, _mm512_castsi512_ps(power));
}

}  // namespace

void swiglu(const float* gate, const float* up, int64_t count, float* out) {
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < count; i += lanes) {
    const __mmask16 mask = mask_of(count - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 e = exponential(_mm512_xor_ps(g, _mm512_set1_ps(-0.0f)));
    const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, e));
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i)));
  }
}

void combine(const float* parts, int64_t stride, const float* weights, int64_t slots, int64_t count,
             float* y) {
  for (int64_t i = 0; i < count; i += lanes) {
    const __mmask16 mask = mask_of(count - i);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t s = 0; s < slots; ++s)
      sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[s]),
                            _mm512_maskz_loadu_ps(mask, parts + s * stride + i), sum);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y + i), sum));
  }
}

}  // namespace qnext::ops::avx512
