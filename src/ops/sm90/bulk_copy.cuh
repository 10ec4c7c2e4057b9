// Copies from global to shared memory that the copy engine makes on its own, and the barriers in
// shared memory that say when they have come.
//
// One thread calls set_up() with the number of arrive() calls a phase waits for, then
// publish_barriers(), and the block synchronises. A phase ends when all have arrived and all bytes
// announced have come; phases alternate in parity, starting with 0, and wait(barrier, parity)
// returns once the phase of that parity is over.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace qnext::ops::sm90 {

using Barrier = uint64_t;

inline __device__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

inline __device__ void set_up(Barrier* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}

// Makes barriers that this thread set up known to the copy engine.
inline __device__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

inline __device__ void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

// Arrives and announces bytes that copies will bring.
inline __device__ void arrive_expecting(Barrier* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

inline __device__ void wait(Barrier* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "retry:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra retry;\n"
      "over:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Both 16-byte aligned, bytes a multiple of 16. Written shared memory that is to be overwritten
// must have been read before (ordered by a barrier or __syncwarp()).
inline __device__ void bulk_copy(void* shared, const void* global, uint32_t bytes,
                                 Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

// What becomes of copied bytes in L2: such as are read once leave it first.
using CachePolicy = uint64_t;
inline __device__ CachePolicy read_once() {
  CachePolicy policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
inline __device__ CachePolicy read_again() {
  CachePolicy policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
inline __device__ void bulk_copy(void* shared, const void* global, uint32_t bytes, Barrier* barrier,
                                 CachePolicy policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}
// As bulk_copy(), for weights that are read once.
inline __device__ void bulk_copy_once(void* shared, const void* global, uint32_t bytes,
                                      Barrier* barrier) {
  bulk_copy(shared, global, bytes, barrier, read_once());
}

// A box of a tensor map (tensor_map.h) whose first value is at (column, row); what lies outside the
// matrix comes as zeros.
inline __device__ void copy_box(void* shared, const CUtensorMap* map, int column, int row,
                                Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
      "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier))
      : "memory");
}

// A place in a ring, or of something that alternates.
struct Place {
  int at = 0;
  uint32_t parity = 0;

  __device__ void advance(int count) {
    if (++at < count) return;
    at = 0;
    parity ^= 1;
  }
};

}  // namespace qnext::ops::sm90
