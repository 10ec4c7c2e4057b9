// Rows of an embedding table by token, as floats; conventions in ops/batch_cuda.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "tensor/dtype.h"

namespace qnext::ops::cuda {

// table [vocabulary, width] dense in `dtype` (f32, f16 or bf16, else Error); tokens [rows], each
// within the vocabulary; out [rows, width].
void embed(cudaStream_t stream, DType dtype, const void* table, int64_t width,
           const int32_t* tokens, int64_t rows, float* out, int64_t out_stride);

// out[i] = x[row_of[i]]: picks rows of [.., width], such as the hidden rows that go to the head.
void gather_rows(cudaStream_t stream, const float* x, int64_t x_stride, int64_t width,
                 const int32_t* row_of, int64_t rows, float* out, int64_t out_stride);

}  // namespace qnext::ops::cuda
