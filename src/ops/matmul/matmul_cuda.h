// matmul.h on the GPU; conventions in ops/batch_cuda.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/matmul/matmul.h"

namespace qnext::ops::cuda {

// y[r, n] = (accumulate ? y[r, n] : 0) + sum over k of x[r, k] * w[n, k] + (bias ? bias[n] : 0).
// weight: data, 16-byte aligned, and block_scales on the device; f32, f16, bf16 or f8_e4m3
// row-major. x, y overlap nowhere. Throws Error on the block formats.
void matmul(cudaStream_t stream, const float* x, int64_t x_stride, int64_t rows,
            const WeightMatrix& weight, const float* bias, float* y, int64_t y_stride,
            bool accumulate = false);

}  // namespace qnext::ops::cuda
