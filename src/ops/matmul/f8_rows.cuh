// How a row's unit is found, and two values rounded.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/matmul/f8_rows_cuda.h"

namespace qnext::ops::cuda {

// For a row whose largest value is `largest`: its unit and 1 / that.
struct F8Unit {
  float unit, factor;
  __device__ explicit F8Unit(float largest) {
    const int exponent =
        max(static_cast<int>(__float_as_uint(largest) >> 23) - 127, f8_least_exponent);
    factor = __uint_as_float(static_cast<uint32_t>(127 + 7 - exponent) << 23);
    unit = __uint_as_float(static_cast<uint32_t>(127 - 7 + exponent) << 23);
  }
};

// Two e4m3 values, saturating.
__device__ inline uint32_t f8_pair(float low, float high) {
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
}

}  // namespace qnext::ops::cuda
