// Launches that overlap: a kernel may start while the one before it still runs (programmatic
// dependent launch), do what depends on nothing (read weights, set up barriers), and then wait.
//
// The rule that keeps this safe: every block of every kernel that is launched so calls
// wait_for_earlier_kernels() before it reads what an earlier kernel wrote and before it writes
// anything to global memory, on every path to its end. Then a kernel's end implies the end of all
// kernels before it.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "base/cuda_error.h"

namespace qnext::ops::cuda {

// All global writes of earlier kernels on the stream are visible behind this.
__device__ inline void wait_for_earlier_kernels() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// The next kernel's blocks may start wherever there is room for them.
__device__ inline void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// Of this process's GPU.
inline int multiprocessors() {
  static const int count = [] {
    int device = 0, found = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device),
               "cudaDeviceGetAttribute");
    return found;
  }();
  return count;
}

// All of a multiprocessor's fast memory is shared memory where this kernel runs. A kernel of which
// it takes one block would get less, and no block of another kernel could join it there.
template <typename... Parameters>
void keep_all_shared(void (*kernel)(Parameters...)) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared),
             "cudaFuncSetAttribute");
}

// So many bytes of shared memory for each block that a multiprocessor takes one block of the kernel
// and no two: else one that is free of other kernels' blocks gets two, and all wait for those.
inline size_t alone_on_multiprocessor(size_t shared_bytes) {
  static const int least = [] {
    int device = 0, all = 0, reserved = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device),
               "cudaDeviceGetAttribute");
    check_cuda(cudaDeviceGetAttribute(&reserved, cudaDevAttrReservedSharedMemoryPerBlock, device),
               "cudaDeviceGetAttribute");
    return all / 2 - reserved + 16;
  }();
  return std::max(shared_bytes, static_cast<size_t>(least));
}

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...), allowed to start early. Raises the
// kernel's limit of dynamic shared memory where it is above 48 KB.
template <typename... Parameters, typename... Arguments>
void launch_overlapped(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                       size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  if (shared_bytes > size_t{48} << 10) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               name);
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
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
