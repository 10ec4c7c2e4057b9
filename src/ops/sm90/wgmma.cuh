// Matrix products of a warpgroup: wgmma with A from registers and B from shared memory.
//
//   d[64, N] (+)= a[64, 16] b[N, 16]^T     bf16 operands, fp32 sums
//   d[64, N] (+)= a[64, 32] b[N, 32]^T     e4m3 operands, sums of 13 bits behind the leading one
//
// Lane l = 4 g + t of warp w (of the four) holds of row 16 w + g: d[4 j], d[4 j + 1] = columns
// 8 j + 2 t and the next; d[4 j + 2], d[4 j + 3] = the same columns of row 16 w + g + 8. Its a[] is
// the fragment of packed_matrix_cuda.h. b lies as the copy engine's 128-byte swizzle writes rows of
// 64 values: row n's 16-byte chunk c at 128 n + 16 (c ^ n % 8), from a multiple of 1024 bytes on.
//
// e4m3: a[0] and a[2] are columns 4 t to 4 t + 3 and those 16 further of row 16 w + g, a[1] and
// a[3] the same of row 16 w + g + 8. b lies as the 64-byte swizzle writes rows of 64 values: row
// n's chunk c at 64 n + 16 (c ^ n / 2 % 4), from a multiple of 512 bytes on.
//
// The product runs on its own: until wait_for_products() d and a may be neither read nor written.
#pragma once

#include <cstdint>

#include "ops/sm90/bulk_copy.cuh"

namespace qnext::ops::sm90 {

// Before the first product, and after d or a was written by other instructions.
inline __device__ void order_registers() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// The products since the last call become a group.
inline __device__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most `pending` of the latest groups still run.
template <int pending>
__device__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Ordinary writes to shared memory of this thread become visible to products and copies, once a
// barrier has followed.
inline __device__ void publish_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Describes b: rows of 128 bytes, groups of 8 rows 1024 bytes apart, 128-byte swizzle. 16 columns
// further: + 2 (32 bytes in units of 16).
inline __device__ uint64_t swizzled_rows(const void* rows) {
  constexpr uint64_t group_stride = 1024 / 16;
  constexpr uint64_t swizzle_128 = 1;
  return (shared_address(rows) & 0x3FFFFu) >> 4 | uint64_t{1} << 16 | group_stride << 32 |
         swizzle_128 << 62;
}

// The same for rows of 64 bytes, groups of 8 rows 512 bytes apart, 64-byte swizzle. 32 columns of
// e4m3 further: + 2.
inline __device__ uint64_t swizzled_rows_64(const void* rows) {
  constexpr uint64_t group_stride = 512 / 16;
  constexpr uint64_t swizzle_64 = 2;
  return (shared_address(rows) & 0x3FFFFu) >> 4 | uint64_t{1} << 16 | group_stride << 32 |
         swizzle_64 << 62;
}

// Registers may be changed by a warpgroup as a whole, all of its warps together.
template <int count>
__device__ void give_registers_back() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

// d = (accumulate ? d : 0) + a b^T, of bf16 and of e4m3.
template <int N>
__device__ void multiply_rows(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,
                              int accumulate);
template <int N>
__device__ void multiply_rows_f8(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,
                                 int accumulate);

#define QNEXT_R0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define QNEXT_R1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define QNEXT_R2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define QNEXT_R3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define QNEXT_R4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define QNEXT_R5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define QNEXT_R6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define QNEXT_R7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define QNEXT_R8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define QNEXT_R9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define QNEXT_R10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define QNEXT_R11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define QNEXT_D8(i)                                                                           \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
// `registers`: the placeholders of d; a0..p: those of a, b and accumulate behind them.
#define QNEXT_MULTIPLY(function, kind, flags, N, registers, a0, a1, a2, a3, b0, p, ...)      \
  template <>                                                                                \
  __device__ inline void function<N>(float(&d)[N / 2], const uint32_t(&a)[4], uint64_t b,    \
                                     int accumulate) {                                       \
    asm volatile(                                                                            \
        "{\n"                                                                                \
        ".reg .pred p;\n"                                                                    \
        "setp.ne.b32 p, " p                                                                  \
        ", 0;\n"                                                                             \
        "wgmma.mma_async.sync.aligned.m64n" #N kind " {" registers "}, {" a0 ", " a1 ", " a2 \
        ", " a3 "}, " b0 ", p, " flags                                                       \
        ";\n"                                                                                \
        "}\n"                                                                                \
        : __VA_ARGS__                                                                        \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));              \
  }
#define QNEXT_MULTIPLY_ROWS(...)                                             \
  QNEXT_MULTIPLY(multiply_rows, "k16.f32.bf16.bf16", "1, 1, 0", __VA_ARGS__) \
  QNEXT_MULTIPLY(multiply_rows_f8, "k32.f32.e4m3.e4m3", "1, 1", __VA_ARGS__)
QNEXT_MULTIPLY_ROWS(32, QNEXT_R0 ", " QNEXT_R1, "%16", "%17", "%18", "%19", "%20", "%21",
                    QNEXT_D8(0), QNEXT_D8(8))
QNEXT_MULTIPLY_ROWS(64, QNEXT_R0 ", " QNEXT_R1 ", " QNEXT_R2 ", " QNEXT_R3, "%32", "%33", "%34",
                    "%35", "%36", "%37", QNEXT_D8(0), QNEXT_D8(8), QNEXT_D8(16), QNEXT_D8(24))
QNEXT_MULTIPLY_ROWS(96,
                    QNEXT_R0 ", " QNEXT_R1 ", " QNEXT_R2 ", " QNEXT_R3 ", " QNEXT_R4 ", " QNEXT_R5,
                    "%48", "%49", "%50", "%51", "%52", "%53", QNEXT_D8(0), QNEXT_D8(8),
                    QNEXT_D8(16), QNEXT_D8(24), QNEXT_D8(32), QNEXT_D8(40))
QNEXT_MULTIPLY_ROWS(128,
                    QNEXT_R0 ", " QNEXT_R1 ", " QNEXT_R2 ", " QNEXT_R3 ", " QNEXT_R4 ", " QNEXT_R5
                             ", " QNEXT_R6 ", " QNEXT_R7,
                    "%64", "%65", "%66", "%67", "%68", "%69", QNEXT_D8(0), QNEXT_D8(8),
                    QNEXT_D8(16), QNEXT_D8(24), QNEXT_D8(32), QNEXT_D8(40), QNEXT_D8(48),
                    QNEXT_D8(56))
QNEXT_MULTIPLY_ROWS(160,
                    QNEXT_R0 ", " QNEXT_R1 ", " QNEXT_R2 ", " QNEXT_R3 ", " QNEXT_R4 ", " QNEXT_R5
                             ", " QNEXT_R6 ", " QNEXT_R7 ", " QNEXT_R8 ", " QNEXT_R9,
                    "%80", "%81", "%82", "%83", "%84", "%85", QNEXT_D8(0), QNEXT_D8(8),
                    QNEXT_D8(16), QNEXT_D8(24), QNEXT_D8(32), QNEXT_D8(40), QNEXT_D8(48),
                    QNEXT_D8(56), QNEXT_D8(64), QNEXT_D8(72))
QNEXT_MULTIPLY_ROWS(192,
                    QNEXT_R0 ", " QNEXT_R1 ", " QNEXT_R2 ", " QNEXT_R3 ", " QNEXT_R4 ", " QNEXT_R5
                             ", " QNEXT_R6 ", " QNEXT_R7 ", " QNEXT_R8 ", " QNEXT_R9 ", " QNEXT_R10
                             ", " QNEXT_R11,
                    "%96", "%97", "%98", "%99", "%100", "%101", QNEXT_D8(0), QNEXT_D8(8),
                    QNEXT_D8(16), QNEXT_D8(24), QNEXT_D8(32), QNEXT_D8(40), QNEXT_D8(48),
                    QNEXT_D8(56), QNEXT_D8(64), QNEXT_D8(72), QNEXT_D8(80), QNEXT_D8(88))
#undef QNEXT_MULTIPLY_ROWS
#undef QNEXT_MULTIPLY
#undef QNEXT_D8
#undef QNEXT_R0
#undef QNEXT_R1
#undef QNEXT_R2
#undef QNEXT_R3
#undef QNEXT_R4
#undef QNEXT_R5
#undef QNEXT_R6
#undef QNEXT_R7
#undef QNEXT_R8
#undef QNEXT_R9
#undef QNEXT_R10
#undef QNEXT_R11

}  // namespace qnext::ops::sm90
