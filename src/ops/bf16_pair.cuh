// Two values rounded to bf16 in one register, as fragments and rows in memory hold them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace qnext::ops::cuda {

// Rounded to nearest even, `low` in the lower half.
__device__ inline uint32_t bf16_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

}  // namespace qnext::ops::cuda
