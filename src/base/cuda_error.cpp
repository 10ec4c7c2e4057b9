#include "base/cuda_error.h"

#include "base/error.h"

namespace qnext {

void check_cuda(cudaError_t code, const char* what) {
  if (code != cudaSuccess) fail("CUDA: {} failed: {}", what, cudaGetErrorString(code));
}

void fail_cuda(const char* text) {
  fail("{}", text);
}

}  // namespace qnext
