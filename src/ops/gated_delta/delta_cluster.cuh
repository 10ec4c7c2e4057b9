// Private to the fast forms of Gated DeltaNet: blocks of one cluster, their launch and what they
// tell each other through distributed shared memory.
#pragma once

#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

__device__ inline uint32_t rank_in_cluster() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// Relaxed: orders nothing but itself. (The releasing form waits until every store of the block has
// reached memory, microseconds for a state.)
__device__ inline void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
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

// launch_overlapped() with clusters of `cluster` blocks along x (up to 16; above 8 the kernel is
// allowed it here).
template <typename Arguments>
void launch_clusters(const char* name, void (*kernel)(Arguments), unsigned cluster, dim3 grid,
                     unsigned threads, size_t shared_bytes, cudaStream_t stream,
                     const Arguments& arguments) {
  if (shared_bytes > size_t{48} << 10)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               name);
  if (cluster > 8)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
               name);
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = cluster;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  check_cuda(cudaLaunchKernelEx(&config, kernel, arguments), name);
}

}  // namespace qnext::ops::cuda
