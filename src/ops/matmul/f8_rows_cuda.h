// Rows of activations in e4m3, as products of e4m3 take them.
//
//   values[row, c] = e4m3(x[row, c] / unit[row])
//
// unit[row] is the power of two that puts the largest |x[row, c] / unit[row]| into [128, 256): a
// value is off by at most 2^-4 of itself, or by 2^-10 of the unit where that is more (2^-17 of the
// row's largest). One unit for a row is enough: e4m3's own exponents span 2^15.
//
// Each 16 columns stand in the order in which a lane of the tensor core holds weights of
// packed_matrix_cuda.h: column 8 u + 2 t + e is byte 4 t + 2 u + e (u, e of 0, 1; t of 0..3).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/matmul/packed_matrix_cuda.h"

namespace qnext::ops::cuda {

// What products of prompts round the rows of f8 weights to.
enum class Activations { bf16, f8 };

// A largest value counts as 2^this at least.
constexpr int f8_least_exponent = -100;

// values: 16-byte aligned, stride a multiple of 16 and at least the columns; those up to the next
// 16 columns are zeros. unit: 16-byte aligned, with room for a multiple of 4 rows.
struct F8Rows {
  uint8_t* values = nullptr;
  int64_t stride = 0;
  float* unit = nullptr;
};

constexpr int64_t f8_columns(int64_t columns) {
  return (columns + 15) / 16 * 16;
}

// x [rows, columns], 16-byte aligned, x_stride divisible by 8; what lies behind a row's columns has
// no effect.
void round_rows_to_f8(cudaStream_t stream, const Bf16* x, int64_t x_stride, int64_t rows,
                      int64_t columns, const F8Rows& to);

}  // namespace qnext::ops::cuda
