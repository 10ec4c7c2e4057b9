// Sixteen floats at a time: the vocabulary in which kernels that need no more than this are
// written once for both instruction sets. Only files compiled for AVX-512 include it; everything is
// local to them. vector_avx2.h says the same with eight.
#pragma once

// GCC 12 finds fault with its own _mm512_undefined_ps().
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>
#include <stdint.h>

namespace qnext::ops {
namespace {

using Vector = __m512;
constexpr int64_t lanes = 16;

inline __mmask16 first_mask(int64_t n) {
  return static_cast<__mmask16>((1u << n) - 1);
}

inline Vector zero() {
  return _mm512_setzero_ps();
}
inline Vector splat(float x) {
  return _mm512_set1_ps(x);
}
inline Vector load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline void store(float* p, Vector x) {
  _mm512_storeu_ps(p, x);
}
// The first n < 16 values; the other lanes are zero, their memory is not touched.
inline Vector load_first(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(first_mask(n), p);
}
inline void store_first(float* p, Vector x, int64_t n) {
  _mm512_mask_storeu_ps(p, first_mask(n), x);
}
// Lanes from n < 16 on become `other`.
inline Vector keep_first(Vector x, int64_t n, Vector other) {
  return _mm512_mask_mov_ps(other, first_mask(n), x);
}

inline Vector add(Vector a, Vector b) {
  return _mm512_add_ps(a, b);
}
inline Vector subtract(Vector a, Vector b) {
  return _mm512_sub_ps(a, b);
}
inline Vector multiply(Vector a, Vector b) {
  return _mm512_mul_ps(a, b);
}
inline Vector divide(Vector a, Vector b) {
  return _mm512_div_ps(a, b);
}
// a * b + c, c - a * b
inline Vector fma(Vector a, Vector b, Vector c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline Vector fnma(Vector a, Vector b, Vector c) {
  return _mm512_fnmadd_ps(a, b, c);
}
// Where one is NaN: the second.
inline Vector minimum(Vector a, Vector b) {
  return _mm512_min_ps(a, b);
}
inline Vector maximum(Vector a, Vector b) {
  return _mm512_max_ps(a, b);
}
inline Vector round_to_whole(Vector x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// x * 2^n for whole n, rounded once.
inline Vector scale_by_power(Vector x, Vector n) {
  return _mm512_scalef_ps(x, n);
}

// Sums lanes 8 apart, then 4, 2, 1.
inline float reduce_add(Vector x) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
inline float reduce_maximum(Vector x) {
  return _mm512_reduce_max_ps(x);
}
inline float first_lane(Vector x) {
  return _mm512_cvtss_f32(x);
}

}  // namespace
}  // namespace qnext::ops
