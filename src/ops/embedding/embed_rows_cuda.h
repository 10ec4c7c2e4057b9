// Rows by token or number for the fast path; conventions in ops/batch_cuda.h, launches as in
// launch_cuda.cuh. Rows are 16-byte aligned: strides are multiples of 16 bytes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/matmul/packed_matrix_cuda.h"
#include "tensor/dtype.h"

namespace qnext::ops::cuda {

// out [rows, columns] = table[tokens[row]], widened. The table [vocabulary, columns] is dense in
// `dtype` (f32, f16 or bf16, else Error); columns is a multiple of 8. A token outside the
// vocabulary (one that could not be drawn, say) gives zeros.
void embed_rows(cudaStream_t stream, DType dtype, const void* table, int64_t vocabulary,
                int64_t columns, const int32_t* tokens, int64_t rows, float* out,
                int64_t out_stride);

// out[row] = x[row_of[row]], columns as stored; a row_of below 0 gives zeros. No overlap.
void pick_rows(cudaStream_t stream, const float* x, int64_t x_stride, int64_t columns,
               const int32_t* row_of, int64_t rows, float* out, int64_t out_stride);
void pick_rows(cudaStream_t stream, const Bf16* x, int64_t x_stride, int64_t columns,
               const int32_t* row_of, int64_t rows, Bf16* out, int64_t out_stride);

}  // namespace qnext::ops::cuda
