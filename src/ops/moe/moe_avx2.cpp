// swiglu and combine, AVX2: the scalar kernels' operations, 8 lanes at a time.
#include <immintrin.h>

#include "ops/moe/moe_constants.h"
#include "ops/moe/moe_kernels.h"

namespace qnext::ops::avx2 {

namespace {

constexpr int64_t lanes = 8;

inline __m256i mask_of(int64_t left) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(left > lanes ? lanes : static_cast<int>(left)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline __m256 exponential(__m256 x) {
  using namespace exp_constants;
  // The second operand is returned for NaN.
  x = _mm256_max_ps(_mm256_set1_ps(lowest), x);
  x = _mm256_min_ps(_mm256_set1_ps(highest), x);
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(log2_e)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(ln2_low),
                                    _mm256_fnmadd_ps(n, _mm256_set1_ps(ln2_high), x));
  __m256 p = _mm256_set1_ps(coefficients[0]);
#pragma GCC unroll 8
  for (int i = 1; i < terms; ++i) p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(coefficients[i]));
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

}  // namespace

void swiglu(const float* gate, const float* up, int64_t count, float* out) {
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  for (int64_t i = 0; i < count; i += lanes) {
    const __m256i mask = mask_of(count - i);
    const __m256 g = _mm256_maskload_ps(gate + i, mask);
    const __m256 e = exponential(_mm256_xor_ps(g, sign));
    const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
    _mm256_maskstore_ps(out + i, mask, _mm256_mul_ps(silu, _mm256_maskload_ps(up + i, mask)));
  }
}

void combine(const float* parts, int64_t stride, const float* weights, int64_t slots, int64_t count,
             float* y) {
  for (int64_t i = 0; i < count; i += lanes) {
    const __m256i mask = mask_of(count - i);
    __m256 sum = _mm256_setzero_ps();
    for (int64_t s = 0; s < slots; ++s)
      sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[s]),
                            _mm256_maskload_ps(parts + s * stride + i, mask), sum);
    _mm256_maskstore_ps(y + i, mask, _mm256_add_ps(_mm256_maskload_ps(y + i, mask), sum));
  }
}

}  // namespace qnext::ops::avx2
