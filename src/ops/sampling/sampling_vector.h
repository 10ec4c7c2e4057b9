// The passes on the compiler's own vectors, lowered to whatever instruction set the including file
// is compiled for. No operation is fused and every sum has a lane of its own, so all variants agree
// to the last bit: a seed gives the same text on every machine.
#pragma once

#include <stddef.h>

#include "ops/sampling/sampling_kernels.h"

namespace qnext::ops {
namespace {

using Doubles = double __attribute__((vector_size(64)));
using Floats = float __attribute__((vector_size(64)));
using HalfFloats = float __attribute__((vector_size(32)));
using Words = uint64_t __attribute__((vector_size(64)));

// x[i] = exp(x[i]) for x[i] <= 0 to 2 ulp, doubles or vectors of eight: x = n ln 2 + r with
// |r| <= 0.3466, exp(r) its Taylor sum to r^13 (the next term is below 0.3466^14 / 14! = 4e-18),
// times 2^n by the exponent field. Zero below -708: such a token's share of any sum is lost in its
// rounding. Several at once, because the sum is one long chain.
template <typename Bits, int count, typename Real>
inline void exponentiate(Real (&x)[count]) {
  constexpr double magic = 0x1.8p52;  // adding it rounds to a whole number, held in the low bits
  constexpr double coefficients[] = {1.0 / 479001600,
                                     1.0 / 39916800,
                                     1.0 / 3628800,
                                     1.0 / 362880,
                                     1.0 / 40320,
                                     1.0 / 5040,
                                     1.0 / 720,
                                     1.0 / 120,
                                     1.0 / 24,
                                     1.0 / 6,
                                     0.5,
                                     1.0,
                                     1.0};
  const Real zero = {};
  Real shifted[count];
  Real r[count];
  Real sum[count];
#pragma GCC unroll 4
  for (int i = 0; i < count; ++i) {
    const Real clamped = x[i] < -708.0 ? zero - 708.0 : x[i];
    shifted[i] = clamped * 1.4426950408889634 + magic;
    const Real n = shifted[i] - magic;
    // ln 2 in two parts, the first with 21 zero bits at its end: n times it is exact.
    r[i] = (clamped - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
    sum[i] = zero + 1.0 / 6227020800;
  }
#pragma GCC unroll 13
  for (int term = 0; term < 13; ++term)
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) sum[i] = sum[i] * r[i] + coefficients[term];
#pragma GCC unroll 4
  for (int i = 0; i < count; ++i) {
    Bits bits;
    Bits power;
    __builtin_memcpy(&bits, &sum[i], sizeof bits);
    __builtin_memcpy(&power, &shifted[i], sizeof power);
    bits += power << 52;
    __builtin_memcpy(&sum[i], &bits, sizeof bits);
    x[i] = x[i] < -708.0 ? zero : sum[i];
  }
}

inline float largest_lane(const Floats& x) {
  float most = x[0];
  for (int lane = 1; lane < 16; ++lane) most = x[lane] > most ? x[lane] : most;
  return most;
}

inline bool block_maxima_vector(const float* logits, int64_t count, float* maxima) {
  const Floats lowest = Floats{} - __builtin_inff();
  auto nan = lowest != lowest;  // NOLINT(misc-redundant-expression): a mask of zeros
  for (int64_t begin = 0; begin < count; begin += logit_block) {
    Floats most = lowest;
    const int64_t end = count - begin < logit_block ? count : begin + logit_block;
    for (int64_t i = begin; i < end; i += 16) {
      Floats x = lowest;
      if (end - i >= 16)
        __builtin_memcpy(&x, logits + i, sizeof x);
      else
        __builtin_memcpy(&x, logits + i, static_cast<size_t>(end - i) * sizeof(float));
      nan |= x != x;  // NOLINT(misc-redundant-expression): true for NaN alone
      most = x > most ? x : most;
    }
    maxima[begin / logit_block] = largest_lane(most);
  }
  bool any = false;
  for (int lane = 0; lane < 16; ++lane) any |= nan[lane] != 0;
  return any;
}

inline void block_sums_vector(const float* logits, int64_t count, double maximum,
                              double inverse_temperature, double* sums) {
  for (int64_t begin = 0; begin < count; begin += logit_block) {
    Doubles total = {};
    const int64_t end = count - begin < logit_block ? count : begin + logit_block;
    for (int64_t i = begin; i < end; i += 32) {
      HalfFloats x[4];
      for (HalfFloats& each : x) each = HalfFloats{} - __builtin_inff();
      const int64_t here = end - i < 32 ? end - i : 32;
      if (here == 32)
        __builtin_memcpy(&x, logits + i, sizeof x);
      else
        __builtin_memcpy(&x, logits + i, static_cast<size_t>(here) * sizeof(float));
      Doubles share[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        share[j] = (__builtin_convertvector(x[j], Doubles) - maximum) * inverse_temperature;
      exponentiate<Words>(share);
      total += (share[0] + share[2]) + (share[1] + share[3]);
    }
    sums[begin / logit_block] = ((total[0] + total[4]) + (total[2] + total[6])) +
                                ((total[1] + total[5]) + (total[3] + total[7]));
  }
}

}  // namespace
}  // namespace qnext::ops
