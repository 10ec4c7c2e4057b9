// The constants of exp() in the swiglu kernels: the same on every instruction set.
#pragma once

namespace qnext::ops::exp_constants {

// Within these 2^n is a normal number; sigmoid beyond is 0 or 1 to within 2^-125.
constexpr float lowest = -87.0f;
constexpr float highest = 88.0f;
constexpr float log2_e = 0x1.715476p+0f;
// ln 2 in two parts (Cody and Waite): n times the first is exact.
constexpr float ln2_high = 0x1.62e400p-1f;
constexpr float ln2_low = 0x1.7f7d1cp-20f;
// Taylor's 1/k!, k = 7 .. 0: for |r| <= ln(2)/2 what is left out is below r^8 / 8! = 5e-9, a tenth
// of the unit roundoff.
constexpr int terms = 8;
constexpr float coefficients[terms] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                       1.0f / 6,    1.0f / 2,   1.0f,       1.0f};

}  // namespace qnext::ops::exp_constants
