// exp and what is made of it, on the Vector of whichever vector_*.h was included before.
#pragma once

namespace qnext::ops {
namespace {

// exp(x) to 2 ulp; 0 below -103.97, infinity above 88.72, NaN stays NaN.
//
// x = n ln 2 + r with |r| <= 0.3466; ln 2 is subtracted in two parts, the first short enough that
// n times it is exact. exp(r) is its Taylor sum to r^7: the first omitted term is below
// 0.3466^8 / 8! = 5e-9, a twelfth of an ulp.
inline Vector exponential(Vector x) {
  // -104 rounds to 0, 89 to infinity: beyond them nothing changes.
  x = maximum(splat(-104.0f), minimum(splat(89.0f), x));
  const Vector n = round_to_whole(multiply(x, splat(1.44269504f)));
  Vector r = fnma(n, splat(0.693359375f), x);
  r = fnma(n, splat(-2.12194440e-4f), r);
  Vector sum = splat(1.0f / 5040);
  constexpr float coefficients[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (const float coefficient : coefficients) sum = fma(sum, r, splat(coefficient));
  return scale_by_power(sum, n);
}

inline Vector sigmoid(Vector x) {
  return divide(splat(1.0f), add(splat(1.0f), exponential(subtract(zero(), x))));
}
inline Vector silu(Vector x) {
  return divide(x, add(splat(1.0f), exponential(subtract(zero(), x))));
}

}  // namespace
}  // namespace qnext::ops
