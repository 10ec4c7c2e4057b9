// A row's activations as f16, for products with e4m3 weights: one instruction widens two of those
// to f16, where bf16 takes five. The products and sums are the same to the bit as long as every
// activation is: a power of two goes into the row and out of the sums, and a row with a value that
// f16 would not hold as a normal number (or 0) takes the way of bf16.
//
// That a chain of mma in f16 has the bits of one in bf16 where all values are normal in both was
// found in 67 million sums of 128 products (four distributions, exponents over 28 powers of two).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "ops/matmul/packed_tile.cuh"

namespace qnext::ops::cuda {

// x * 2^7: values from 2^-21 up to below 2^9.
constexpr float half_row_factor = 0x1p7f;
constexpr float half_row_inverse = 0x1p-7f;

// Two bf16 activations as scaled f16; whether f16 holds them is gathered in HalfCheck.
__device__ inline Pair scaled_halves(Pair pair) {
  const float low = __uint_as_float(pair << 16), high = __uint_as_float(pair & 0xFFFF0000u);
  const __half2 halves = __floats2half2_rn(low * half_row_factor, high * half_row_factor);
  return reinterpret_cast<const Pair&>(halves);
}

class HalfCheck {
 public:
  __device__ void add(Pair pair) {
    // Bit 15 of a magnitude plus a constant says whether the magnitude reaches a bound; none
    // carries, as both are below 2^15.
    constexpr Pair ones = 0x00010001;
    constexpr Pair to_end = (0x8000 - bits_of_end) * ones,
                   to_least = (0x8000 - bits_of_least) * ones, to_one = 0x7FFF * ones;
    const Pair magnitude = pair & 0x7FFF7FFFu;
    bad_ |= (magnitude + to_end) | (~(magnitude + to_least) & (magnitude + to_one));
  }
  __device__ bool failed() const { return (bad_ & 0x80008000u) != 0; }

 private:
  static constexpr Pair bits_of_least = (127 - 21) << 7, bits_of_end = (127 + 9) << 7;
  Pair bad_ = 0;
};

__device__ inline void multiply_add_halves(float (&c)[4], const Pair (&a)[4], Pair b0, Pair b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Step s of a tile in the fewest instructions. halves: f8 against a row in f16, whose sums want
// half_row_inverse. q4's sums want 1 / LaneTile<q4>::small.
template <PackedFormat format, bool halves>
__device__ inline void add_step(float (&c)[4], const LaneTile<format>& weights, int step, Pair b0,
                                Pair b1) {
  Pair a[4];
  if constexpr (halves)
    weights.half_fragment(step, a);
  else if constexpr (format == PackedFormat::q4)
    weights.small_fragment(step, a);
  else
    weights.fragment(step, a);
  if constexpr (halves)
    multiply_add_halves(c, a, b0, b1);
  else
    multiply_add(c, a, b0, b1);
}

}  // namespace qnext::ops::cuda
