#include "ops/activation/vector_avx512.h"

namespace qnext::ops {
namespace {

constexpr int64_t tile_rows = 4;  // 16 sums, 4 keys, 1 query: 21 of 32 registers

// sums[4 * key + query] of 4 keys and 4 queries. Lanes 8 apart, then 4, 2, 1 are added while the
// 16 vectors are transposed into one; its quarter i holds query i.
inline void store_sums(const __m512* sums, float scale, float* out, int64_t stride) {
  __m512 halves[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    halves[i] = _mm512_add_ps(_mm512_shuffle_f32x4(sums[2 * i], sums[2 * i + 1], 0x44),
                              _mm512_shuffle_f32x4(sums[2 * i], sums[2 * i + 1], 0xEE));
  __m512 quarters[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    quarters[i] = _mm512_add_ps(_mm512_shuffle_f32x4(halves[2 * i], halves[2 * i + 1], 0x88),
                                _mm512_shuffle_f32x4(halves[2 * i], halves[2 * i + 1], 0xDD));
  __m512 pairs[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    pairs[i] = _mm512_add_ps(_mm512_shuffle_ps(quarters[2 * i], quarters[2 * i + 1], 0x44),
                             _mm512_shuffle_ps(quarters[2 * i], quarters[2 * i + 1], 0xEE));
  const __m512 all = _mm512_mul_ps(_mm512_set1_ps(scale),
                                   _mm512_add_ps(_mm512_shuffle_ps(pairs[0], pairs[1], 0x88),
                                                 _mm512_shuffle_ps(pairs[0], pairs[1], 0xDD)));
  _mm_storeu_ps(out, _mm512_castps512_ps128(all));
  _mm_storeu_ps(out + stride, _mm512_extractf32x4_ps(all, 1));
  _mm_storeu_ps(out + 2 * stride, _mm512_extractf32x4_ps(all, 2));
  _mm_storeu_ps(out + 3 * stride, _mm512_extractf32x4_ps(all, 3));
}

inline __m512 widen_values(const uint16_t* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline __m512 widen_bytes(const char* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
inline float widen_half(uint16_t half) {
  return _cvtsh_ss(half);
}

// As float_to_bf16: to nearest even, NaN kept and made quiet.
inline void narrow_values(__m512 x, uint16_t* out) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i top = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(
      _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_or_epi32(rounded, nan, top, _mm512_set1_epi32(0x40));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(kept));
}

}  // namespace
}  // namespace qnext::ops

#include "ops/attention/attention_vector.h"

namespace qnext::ops {

const AttentionKernels attention_avx512{widen_vector,  narrow_vector,     scores_vector,
                                        soften_vector, add_values_vector, merge_vector,
                                        finish_vector};

}  // namespace qnext::ops
