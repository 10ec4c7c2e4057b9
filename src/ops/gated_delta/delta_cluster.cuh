// Private to the fast forms of Gated DeltaNet: blocks of one cluster and what they tell each other
// through distributed shared memory.
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/sm90/cluster.cuh"

namespace qnext::ops::cuda {

__device__ inline uint32_t rank_in_cluster() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// The same shared variable in another block of the cluster.
__device__ inline uint32_t remote_address(const void* here, uint32_t rank) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(there)
      : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(here))), "r"(rank));
  return there;
}
// Completes 4 bytes on the other block's `barrier` once the value lies there.
__device__ inline void store_remote(float* here, uint32_t rank, float value,
                                    const uint64_t* barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
          remote_address(here, rank)),
      "r"(__float_as_uint(value)), "r"(remote_address(barrier, rank))
      : "memory");
}

}  // namespace qnext::ops::cuda
