#include "ops/activation/vector_avx2.h"

namespace qnext::ops {
namespace {

constexpr int64_t tile_rows = 2;  // 8 sums, 4 keys, 1 query: 13 of 16 registers

// sums[2 * key + query] of 4 keys and 2 queries. Lanes 4 apart, then 2, 1 are added while the 8
// vectors are transposed into one; its half i holds query i.
inline void store_sums(const __m256* sums, float scale, float* out, int64_t stride) {
  __m256 quarters[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    quarters[i] = _mm256_add_ps(_mm256_permute2f128_ps(sums[2 * i], sums[2 * i + 1], 0x20),
                                _mm256_permute2f128_ps(sums[2 * i], sums[2 * i + 1], 0x31));
  __m256 pairs[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    pairs[i] = _mm256_add_ps(_mm256_shuffle_ps(quarters[2 * i], quarters[2 * i + 1], 0x44),
                             _mm256_shuffle_ps(quarters[2 * i], quarters[2 * i + 1], 0xEE));
  const __m256 all = _mm256_mul_ps(_mm256_set1_ps(scale),
                                   _mm256_add_ps(_mm256_shuffle_ps(pairs[0], pairs[1], 0x88),
                                                 _mm256_shuffle_ps(pairs[0], pairs[1], 0xDD)));
  _mm_storeu_ps(out, _mm256_castps256_ps128(all));
  _mm_storeu_ps(out + stride, _mm256_extractf128_ps(all, 1));
}

inline __m256 widen_values(const uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

inline __m256 widen_bytes(const char* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
inline float widen_half(uint16_t half) {
  return _cvtsh_ss(half);
}

// As float_to_bf16: to nearest even, NaN kept and made quiet.
inline void narrow_values(__m256 x, uint16_t* out) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i top = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
  const __m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i kept = _mm256_blendv_epi8(rounded, quiet, nan);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(out),
      _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1)));
}

}  // namespace
}  // namespace qnext::ops

#include "ops/attention/attention_vector.h"

namespace qnext::ops {

const AttentionKernels attention_avx2{widen_vector,  narrow_vector,     scores_vector,
                                      soften_vector, add_values_vector, merge_vector,
                                      finish_vector};

}  // namespace qnext::ops
