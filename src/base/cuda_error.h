// Return codes of the CUDA runtime as Errors. Free of fmt, which nvcc's front end cannot read in
// C++20: .cu files include this header in place of base/error.h.
#pragma once

#include <cuda_runtime_api.h>

namespace qnext {

// Throws Error "CUDA: <what> failed: <reason>" unless code is cudaSuccess.
void check_cuda(cudaError_t code, const char* what);

// After a kernel launch: was it accepted?
inline void check_launch(const char* kernel) {
  check_cuda(cudaGetLastError(), kernel);
}

// qnext::fail with a finished text.
[[noreturn]] void fail_cuda(const char* text);

}  // namespace qnext
