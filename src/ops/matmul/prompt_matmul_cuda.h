// Products of many rows with packed weights (prompt form), on Hopper's tensor cores:
//
//   y[row, n] (=|+=) sum over k of x[row, k] * w[n, k]
//
// Products of bf16 values are exact, sums fp32 (the tensor core truncates where it aligns: about
// 2^-22 of sum |x w| for each 16 columns), f8 scales multiply the sum over their 128 columns.
// Within this form a row's bits depend on that row alone, whatever the number of rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/matmul/f8_rows_cuda.h"

namespace qnext::ops::cuda {

struct PromptOutput {
  enum class Kind { bf16_store, fp32_store, fp32_add };
  Kind kind = Kind::bf16_store;
  void* y = nullptr;   // [rows, w.rows], Bf16 or float
  int64_t stride = 0;  // in values; bf16 rows of a stride divisible by 8 are stored fastest
};

// x: bf16 [rows, w.columns], 16-byte aligned, x_stride divisible by 8; whatever lies behind a row's
// columns is not read. rows >= 0. Overlaps: y with neither x nor w. For f8 the scales that share 8
// rows of w must lie within 2^60 of each other, or be zero.
void prompt_matmul(cudaStream_t stream, const Bf16* x, int64_t x_stride, int64_t rows,
                   const PackedMatrix& w, const PromptOutput& output);

// The same with rows rounded to e4m3 and weights of f8: products of e4m3, at twice the rate. The
// tensor core's sums keep 13 bits behind their leading one: at most 2^-13 of the largest addend is
// lost for each addend, 32 columns and the sum so far at a time.
void prompt_matmul(cudaStream_t stream, const F8Rows& x, int64_t rows, const PackedMatrix& w,
                   const PromptOutput& output);

}  // namespace qnext::ops::cuda
