// wgmma of bf16 or e4m3 operands with fp32 sums, and the descriptors of operands in shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace qnext::ops::cuda {

// Without swizzle: pieces of 8 rows x 16 bytes, 128 contiguous bytes, `along_k` bytes apart along
// the summed dimension and `across` bytes apart along the other.
__device__ inline uint64_t operand(uint32_t address, uint32_t along_k, uint32_t across) {
  return static_cast<uint64_t>((address & 0x3FFFF) >> 4) |
         static_cast<uint64_t>(along_k >> 4) << 16 | static_cast<uint64_t>(across >> 4) << 32;
}

// Before the first product that reads or adds to registers which other instructions wrote.
__device__ inline void products_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// All but the last `pending` groups are done.
template <int pending>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
// Keeps the compiler from reading the sums before the wait above.
template <int count>
__device__ inline void sums_ready(float (&c)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// For asm: c and its registers.
#define QNEXT_LIST_32                                                                      \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, " \
  "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
#define QNEXT_LIST_64                                                                      \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, " \
  "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "  \
  "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "  \
  "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
#define QNEXT_LIST_128                                                                     \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, " \
  "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "  \
  "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "  \
  "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "  \
  "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, "  \
  "%87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, "    \
  "%103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, "   \
  "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
#define QNEXT_SUMS_4(c, i) "+f"(c[i]), "+f"(c[(i) + 1]), "+f"(c[(i) + 2]), "+f"(c[(i) + 3])
#define QNEXT_SUMS_16(c, i) \
  QNEXT_SUMS_4(c, i), QNEXT_SUMS_4(c, (i) + 4), QNEXT_SUMS_4(c, (i) + 8), QNEXT_SUMS_4(c, (i) + 12)
#define QNEXT_SUMS_32(c) QNEXT_SUMS_16(c, 0), QNEXT_SUMS_16(c, 16)
#define QNEXT_SUMS_64(c) QNEXT_SUMS_32(c), QNEXT_SUMS_16(c, 32), QNEXT_SUMS_16(c, 48)
#define QNEXT_SUMS_128(c)                                                             \
  QNEXT_SUMS_64(c), QNEXT_SUMS_16(c, 64), QNEXT_SUMS_16(c, 80), QNEXT_SUMS_16(c, 96), \
      QNEXT_SUMS_16(c, 112)

// c [64 rows, 64] = (add ? c : 0) + a b, k-major operands in shared memory of 32 bytes a row: bf16
// [64, 16] and [16, 64], e4m3 [64, 32] and [32, 64]. The tensor core adds e4m3 products with 13
// bits behind the leading bit of the largest, the sum so far included: only short sums are good.
template <bool bf16>
__device__ inline void product(float (&c)[32], uint64_t a, uint64_t b, bool add) {
  if constexpr (bf16)
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " QNEXT_LIST_32
        "%32, %33, add, 1, 1, 0, 0;\n}\n"
        : QNEXT_SUMS_32(c)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));
  else
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 " QNEXT_LIST_32
        "%32, %33, add, 1, 1;\n}\n"
        : QNEXT_SUMS_32(c)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}

// The same with a in registers: e4m3.
__device__ inline void product_f8(float (&c)[32], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 " QNEXT_LIST_32
      "{%32, %33, %34, %35}, %36, add, 1, 1;\n}\n"
      : QNEXT_SUMS_32(c)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}

// c [64 rows, 2 * count] += a [64, 16] b [16, 2 * count], bf16: a in registers; b in shared memory,
// columns contiguous.
__device__ inline void product_add(float (&c)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " QNEXT_LIST_32
               "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
               : QNEXT_SUMS_32(c)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ inline void product_add(float (&c)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " QNEXT_LIST_64
               "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
               : QNEXT_SUMS_64(c)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ inline void product_add(float (&c)[128], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " QNEXT_LIST_128
               "{%128, %129, %130, %131}, %132, 1, 1, 1, 1;\n"
               : QNEXT_SUMS_128(c)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef QNEXT_SUMS_128
#undef QNEXT_SUMS_64
#undef QNEXT_SUMS_32
#undef QNEXT_SUMS_16
#undef QNEXT_SUMS_4
#undef QNEXT_LIST_128
#undef QNEXT_LIST_64
#undef QNEXT_LIST_32

}  // namespace qnext::ops::cuda
