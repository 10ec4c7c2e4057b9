// activation.h's fp32 functions for device code, and sums over a warp or block in one fixed order.
// Only .cu files include it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace qnext::ops::cuda {

constexpr int warp_lanes = 32;
constexpr unsigned whole_warp = 0xFFFFFFFFu;

// expf of a value <= 0 in each: nothing overflows.
__device__ inline float sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x >= 0 ? 1.0f : e) / (1.0f + e);
}
__device__ inline float silu(float x) {
  return x * sigmoid(x);
}
__device__ inline float softplus(float x) {
  return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
}

// Every lane gets the sum over the warp (the butterfly adds the same pairs in every lane).
__device__ inline float warp_sum(float x) {
  for (int distance = warp_lanes / 2; distance > 0; distance /= 2)
    x += __shfl_xor_sync(whole_warp, x, distance);
  return x;
}
__device__ inline float warp_maximum(float x) {
  for (int distance = warp_lanes / 2; distance > 0; distance /= 2)
    x = fmaxf(x, __shfl_xor_sync(whole_warp, x, distance));
  return x;
}

// Every thread of a block of `threads` (a multiple of 32) gets the sum over the block.
template <int threads>
__device__ inline float block_sum(float x) {
  constexpr int warps = threads / warp_lanes;
  __shared__ float of_warp[warps];
  x = warp_sum(x);
  if (threadIdx.x % warp_lanes == 0) of_warp[threadIdx.x / warp_lanes] = x;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < warps; ++i) sum += of_warp[i];
  __syncthreads();  // of_warp may be written again
  return sum;
}

}  // namespace qnext::ops::cuda
