// Return codes of the CUDA runtime as Errors. Only files of a CUDA build include it.
#pragma once

#include <cuda_runtime_api.h>

#include "base/error.h"

namespace qnext {

inline void check_cuda(cudaError_t code, const char* what) {
  if (code != cudaSuccess) fail("CUDA: {} failed: {}", what, cudaGetErrorString(code));
}

// After a kernel launch: was it accepted?
inline void check_launch(const char* kernel) {
  check_cuda(cudaGetLastError(), kernel);
}

}  // namespace qnext
