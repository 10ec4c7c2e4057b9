// rms_norm.h on the GPU; conventions in ops/batch_cuda.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace qnext::ops::cuda {

// x, y [rows, width]; weight [width]. y may be x (same stride).
void rms_norm(cudaStream_t stream, const float* x, int64_t x_stride, const float* weight, float eps,
              int64_t rows, int64_t width, float* y, int64_t y_stride);

// x, gate, y dense [rows, width], a row being one head of one token; weight [width]. y may be x.
void gated_rms_norm(cudaStream_t stream, const float* x, const float* gate, const float* weight,
                    float eps, int64_t rows, int64_t width, float* y);

}  // namespace qnext::ops::cuda
