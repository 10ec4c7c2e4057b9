// Eight floats at a time; see vector_avx512.h.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace qnext::ops {
namespace {

using Vector = __m256;
constexpr int64_t lanes = 8;

inline __m256i first_mask(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vector zero() {
  return _mm256_setzero_ps();
}
inline Vector splat(float x) {
  return _mm256_set1_ps(x);
}
inline Vector load(const float* p) {
  return _mm256_loadu_ps(p);
}
inline void store(float* p, Vector x) {
  _mm256_storeu_ps(p, x);
}
// The first n < 8 values; the other lanes are zero, their memory is not touched.
inline Vector load_first(const float* p, int64_t n) {
  return _mm256_maskload_ps(p, first_mask(n));
}
inline void store_first(float* p, Vector x, int64_t n) {
  _mm256_maskstore_ps(p, first_mask(n), x);
}
// Lanes from n < 8 on become `other`.
inline Vector keep_first(Vector x, int64_t n, Vector other) {
  return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(first_mask(n)));
}

inline Vector add(Vector a, Vector b) {
  return _mm256_add_ps(a, b);
}
inline Vector subtract(Vector a, Vector b) {
  return _mm256_sub_ps(a, b);
}
inline Vector multiply(Vector a, Vector b) {
  return _mm256_mul_ps(a, b);
}
inline Vector divide(Vector a, Vector b) {
  return _mm256_div_ps(a, b);
}
// a * b + c, c - a * b
inline Vector fma(Vector a, Vector b, Vector c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline Vector fnma(Vector a, Vector b, Vector c) {
  return _mm256_fnmadd_ps(a, b, c);
}
// Where one is NaN: the second.
inline Vector minimum(Vector a, Vector b) {
  return _mm256_min_ps(a, b);
}
inline Vector maximum(Vector a, Vector b) {
  return _mm256_max_ps(a, b);
}
inline Vector round_to_whole(Vector x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// x * 2^n for whole |n| <= 250 and x near 1, rounded once: half of n is always a normal power.
inline Vector scale_by_power(Vector x, Vector n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const auto power = [](__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
  };
  return _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(_mm256_sub_epi32(whole, half)));
}

// Sums lanes 4 apart, then 2, 1.
inline float reduce_add(Vector x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
inline float reduce_maximum(Vector x) {
  __m128 best = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  best = _mm_max_ps(best, _mm_movehl_ps(best, best));
  return _mm_cvtss_f32(_mm_max_ss(best, _mm_movehdup_ps(best)));
}
inline float first_lane(Vector x) {
  return _mm256_cvtss_f32(x);
}

}  // namespace
}  // namespace qnext::ops
