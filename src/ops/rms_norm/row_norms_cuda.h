// Zero-centred RMSNorm of whole rows for the fast path; conventions in ops/batch_cuda.h, launches
// as in launch_cuda.cuh. A row is summed in the order of row_norm.cuh, so that its bits are those
// of the products that normalise their input themselves.
//
//   y = x * rsqrt(mean(x^2) + eps) * (1 + w)      in fp32, rounded where y is bf16
//
// x and weights are 16-byte aligned, strides multiples of 4 elements; y is 16-byte aligned too.
// Only the logical columns are written. y may not overlap x.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/matmul/packed_matrix_cuda.h"
#include "tensor/dtype.h"

namespace qnext::ops::cuda {

// y [rows, columns] = norm(x[row_of[row]]), or of x[row] where row_of is null; a row_of below 0
// gives zeros.
void rms_norm_rows(cudaStream_t stream, const float* x, int64_t x_stride, const int32_t* row_of,
                   const float* weight, float eps, int64_t rows, int64_t columns, Bf16* y,
                   int64_t y_stride);
void rms_norm_rows(cudaStream_t stream, const float* x, int64_t x_stride, const int32_t* row_of,
                   const float* weight, float eps, int64_t rows, int64_t columns, float* y,
                   int64_t y_stride);

// What the MTP head multiplies by fc: y [rows, 2 * columns] =
//   [norm(embedding of tokens[row]) | norm(hidden[row_of[row]])]
// with a weight and, for hidden, a row_of (may be null) each. The table [vocabulary, columns] is
// dense in `dtype` (f32, f16 or bf16, else Error); a token outside the vocabulary reads as zeros.
// columns is a multiple of 8.
struct MtpInput {
  DType dtype = DType::bf16;
  const void* table = nullptr;
  int64_t vocabulary = 0;
  const int32_t* tokens = nullptr;  // [rows]: the token that follows the row
  const float* embedding_weight = nullptr;
  const float* hidden = nullptr;  // behind the final norm
  int64_t hidden_stride = 0;
  const int32_t* row_of = nullptr;
  const float* hidden_weight = nullptr;
  float eps = 0;
};
void mtp_input_rows(cudaStream_t stream, const MtpInput& input, int64_t rows, int64_t columns,
                    Bf16* y, int64_t y_stride);

}  // namespace qnext::ops::cuda
