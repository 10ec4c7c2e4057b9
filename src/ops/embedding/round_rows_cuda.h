// fp32 rows to bf16 rows for the fast path; conventions in ops/batch_cuda.h, launches as in
// launch_cuda.cuh.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/matmul/packed_matrix_cuda.h"

namespace qnext::ops::cuda {

// out[row] = x[row_of[row]] rounded to nearest even, or x[row] where row_of is null. x and out are
// 16-byte aligned, strides multiples of 4 elements. Only the logical columns are written. No
// overlap.
void round_rows(cudaStream_t stream, const float* x, int64_t x_stride, int64_t columns,
                const int32_t* row_of, int64_t rows, Bf16* out, int64_t out_stride);

}  // namespace qnext::ops::cuda
