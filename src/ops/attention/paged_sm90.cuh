// What the paged attention kernels share: instructions of Hopper, and where things lie in a page.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/attention/paged_attention_cuda.h"
#include "ops/bf16_pair.cuh"
#include "ops/matmul/f8_rows.cuh"
#include "ops/sm90/bulk_copy.cuh"

namespace qnext::ops::cuda {

constexpr float log2_e = 1.44269504088896340736f;

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Barriers in shared memory, by their addresses.
__device__ inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes barrier_init visible to bulk copies.
__device__ inline void barrier_init_done() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// bytes, addresses: multiples of 16.
__device__ inline void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

inline __device__ void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier,
                                 sm90::CachePolicy policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

// Into L2.
__device__ inline void prefetch_bulk(const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

// 2^x, 2^-22 relative; 2^-inf is 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// sigmoid(x) within 2^-20 relative: exp2_fast and a reciprocal of 2^-23.
__device__ inline float gate_factor(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.0f + exp2_fast(x * -log2_e)));
  return y;
}

__device__ inline uint32_t f16_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ inline float bf16_value(Bf16 bits) {
  return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}
__device__ inline float low_value(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ inline float high_value(uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000u);
}

__host__ __device__ constexpr int element_bytes(KvFormat format) {
  return format == KvFormat::bf16 ? 2 : 1;
}

// Answers' products over f8 caches are products of f16: it holds every e4m3 value, one instruction
// widens two, and weights are rounded to 2^-11 in place of 2^-8. Normalised queries are far below
// 65,504.
__device__ inline void widen_f8_to_f16(uint32_t word, uint32_t& low, uint32_t& high) {
  asm("{\n.reg .b16 l, h;\nmov.b32 {l, h}, %2;\ncvt.rn.f16x2.e4m3x2 %0, l;\n"
      "cvt.rn.f16x2.e4m3x2 %1, h;\n}"
      : "=r"(low), "=r"(high)
      : "r"(word));
}
__device__ inline uint32_t bf16_to_f16(uint32_t pair) {
  return f16_pair(low_value(pair), high_value(pair));
}

// Two activations or weights as the products of a format take them.
template <KvFormat format>
__device__ inline uint32_t operand_pair(float low, float high) {
  return format == KvFormat::bf16 ? bf16_pair(low, high) : f16_pair(low, high);
}

// Byte of `position` (of 0..15) among a value's 16 positions in an f8 page.
__device__ inline int f8_value_byte(int position) {
  const int u = position / 8, t = position % 8 / 2, e = position % 2;
  return 4 * t + 2 * u + e;
}

}  // namespace qnext::ops::cuda
