// One lane's part of a packed tile (packed_matrix_cuda.h) and its way into registers.
//
//   bf16  four runs of 512 bytes, one a step: lane l's 16 bytes at 16 l are a[0..3].
//   f8    two runs of 512 bytes, two steps each: lane l's words 0, 1 belong to the even step, 2, 3
//         to the odd one. A word's bytes 1 and 3 are the first and second value of an a[even],
//         bytes 0 and 2 those of the a[odd] behind it; word 0 (2) holds a[0], a[1], word 1 (3)
//         a[2], a[3].
//   q4    512 bytes of codes: lane l's word s is step s, nibble i the first and nibble i + 4 the
//         second value of a[i]. Then 64 bytes of scales: for each g two words, columns 0-31 and
//         32-63: low half row g, high half row g + 8, bf16.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "ops/matmul/packed_matrix_cuda.h"

namespace qnext::ops::cuda {

// Two bf16 values in a register, the first one low.
using Pair = uint32_t;

__device__ inline Pair multiply(Pair x, Pair y) {
  Pair product;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(x), "r"(y));
  return product;
}

// e4m3 keeps its bits in bf16, whose exponent is wider: a factor 2^120, exact for subnormals too.
__device__ inline void widen_f8(uint32_t word, Pair& even, Pair& odd) {
  constexpr Pair factor = 0x7B807B80;  // 2^120 twice
  const uint32_t left = word << 8;
  even = multiply((word & 0x80008000u) | ((word >> 4) & 0x07F007F0u), factor);
  odd = multiply((left & 0x80008000u) | ((left >> 4) & 0x07F007F0u), factor);
}

// The same as f16, which holds every e4m3 value; but NaN is NaN.
__device__ inline void widen_f8_to_halves(uint32_t word, Pair& even, Pair& odd) {
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.rn.f16x2.e4m3x2 %0, high;\n"
      "cvt.rn.f16x2.e4m3x2 %1, low;\n}"
      : "=r"(even), "=r"(odd)
      : "r"(__byte_perm(word, 0, 0x3120)));
}

// c += a b: 16 rows of weights, 16 columns, 8 rows of activations, sums in fp32.
__device__ inline void multiply_add(float (&c)[4], const Pair (&a)[4], Pair b0, Pair b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The raw 16-byte pieces of one lane, as loaded; fragment() gives step s of 0..3.
template <PackedFormat format>
struct LaneTile;

template <>
struct LaneTile<PackedFormat::bf16> {
  static constexpr int pieces = 4;
  uint4 piece[pieces];
  __device__ void load(const std::byte* tile, int lane) {
#pragma unroll
    for (int i = 0; i < pieces; ++i)
      piece[i] = *reinterpret_cast<const uint4*>(tile + 512 * i + 16 * lane);
  }
  __device__ void fragment(int step, Pair (&a)[4]) const {
    a[0] = piece[step].x;
    a[1] = piece[step].y;
    a[2] = piece[step].z;
    a[3] = piece[step].w;
  }
};

template <>
struct LaneTile<PackedFormat::f8> {
  static constexpr int pieces = 2;
  uint4 piece[pieces];
  __device__ void load(const std::byte* tile, int lane) {
#pragma unroll
    for (int i = 0; i < pieces; ++i)
      piece[i] = *reinterpret_cast<const uint4*>(tile + 512 * i + 16 * lane);
  }
  // Without the scale: that multiplies the sum over 128 columns.
  __device__ void fragment(int step, Pair (&a)[4]) const {
    const uint4& words = piece[step / 2];
    widen_f8(step % 2 == 0 ? words.x : words.z, a[0], a[1]);
    widen_f8(step % 2 == 0 ? words.y : words.w, a[2], a[3]);
  }
  __device__ void half_fragment(int step, Pair (&a)[4]) const {
    const uint4& words = piece[step / 2];
    widen_f8_to_halves(step % 2 == 0 ? words.x : words.z, a[0], a[1]);
    widen_f8_to_halves(step % 2 == 0 ? words.y : words.w, a[2], a[3]);
  }
  // Of an e4m3 product, 32 columns in the order of f8_rows_cuda.h; step of 0..1.
  __device__ void f8_fragment(int step, uint32_t (&a)[4]) const {
    const uint4& words = piece[step];
    a[0] = __byte_perm(words.x, words.y, 0x7531);
    a[1] = __byte_perm(words.x, words.y, 0x6420);
    a[2] = __byte_perm(words.z, words.w, 0x7531);
    a[3] = __byte_perm(words.z, words.w, 0x6420);
  }
};

template <>
struct LaneTile<PackedFormat::q4> {
  uint4 codes;
  uint2 scales;
  __device__ void load(const std::byte* tile, int lane) {
    codes = *reinterpret_cast<const uint4*>(tile + 16 * lane);
    scales = *reinterpret_cast<const uint2*>(tile + 512 + 8 * (lane / 4));
  }
  __device__ void fragment(int step, Pair (&a)[4]) const {
    const uint32_t word = step == 0 ? codes.x : step == 1 ? codes.y : step == 2 ? codes.z : codes.w;
    const uint32_t scale = step < 2 ? scales.x : scales.y;
    const Pair first = __byte_perm(scale, 0, 0x1010), second = __byte_perm(scale, 0, 0x3232);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      // 0x4300 is 128 in bf16, whose last place is 1: or-ing a nibble in adds it.
      // (a & b) | c in one instruction, which the compiler makes two of.
      Pair raised, centred;
      asm("lop3.b32 %0, %1, %2, %3, 0xEA;"
          : "=r"(raised)
          : "r"(word >> (4 * i)), "r"(0x000F000F), "r"(0x43004300));
      asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(centred) : "r"(raised), "r"(0x43084308u));
      a[i] = multiply(centred, i % 2 == 0 ? first : second);
    }
  }
  // The fragment times 2^-22, in fewer instructions: nibbles where they lie are subnormal values,
  // q 2^-133 and 16 q 2^-133, and d (q - 8) 2^-22 is one fma of them, rounded once. d, an f16, is
  // at most 2^16, so that its multiples below are finite.
  static constexpr float small = 0x1p-22f;
  __device__ void small_fragment(int step, Pair (&a)[4]) const {
    constexpr Pair to_low = 0x77007700, to_high = 0x75007500;  // 2^111, 2^107
    constexpr Pair to_centre = 0xB600B600;                     // -8 2^-22
    const uint32_t word = step == 0 ? codes.x : step == 1 ? codes.y : step == 2 ? codes.z : codes.w;
    const uint32_t scale = step < 2 ? scales.x : scales.y;
    const Pair first = __byte_perm(scale, 0, 0x1010), second = __byte_perm(scale, 0, 0x3232);
    const Pair factor[2] = {multiply(first, to_low), multiply(second, to_high)};
    const Pair centre[2] = {multiply(first, to_centre), multiply(second, to_centre)};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Pair nibbles = (i < 2 ? word : word >> 8) & (i % 2 == 0 ? 0x000F000Fu : 0x00F000F0u);
      asm("fma.rn.bf16x2 %0, %1, %2, %3;"
          : "=r"(a[i])
          : "r"(nibbles), "r"(factor[i % 2]), "r"(centre[i % 2]));
    }
  }
};

}  // namespace qnext::ops::cuda
