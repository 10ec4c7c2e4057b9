// y[r, n] = sum over k of x[r, k] * w[n, k] for few rows: the answer form of every projection, as
// fast as memory gives the weights.
//
// The sum: a run of 128 columns is a chain of mma.m16n8k16 of its own, multiplied by its f8 scale
// where the format has one (rounded); the 4 runs of a part of 512 columns are added in ascending
// order, then the parts. That order holds for every number of rows and every launch, so a row's
// bits are its own. (A chain of wgmma in place of mma, for many rows, has the same bits.)
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/matmul/packed_matrix_cuda.h"

namespace qnext::ops::cuda {

constexpr int64_t most_stream_rows = 256;
constexpr int64_t most_normed_stream_rows = 8;
constexpr int most_stream_products = 4;

// One of two kinds. `values` set: bf16 rows, zero from the logical columns up to a multiple of 64.
// `residual` set: fp32 rows that the kernel norms itself (zero-centred RMSNorm, row_norm.cuh; at
// most most_normed_stream_rows rows) and rounds to bf16. Rows are 16-byte aligned, as are strides.
struct StreamInput {
  const Bf16* values = nullptr;  // [rows, columns]
  int64_t stride = 0;            // of values, in values

  const float* residual = nullptr;  // [rows, columns]
  int64_t residual_stride = 0;
  const float* norm_weight = nullptr;  // [columns], 16-byte aligned
  float eps = 0;
  // Receives the normed rows for later kernels, unless null; 16-byte aligned as the stride.
  Bf16* normed = nullptr;
  int64_t normed_stride = 0;
};

// What becomes of a sum s: y = bf16(s), y = s, or y += s.
enum class StreamStore { bf16, f32, add_f32 };

struct StreamProduct {
  PackedMatrix weight;
  StreamStore store = StreamStore::bf16;
  void* y = nullptr;  // [rows, weight.rows]
  int64_t stride = 0;
};

// Whether a launch of these products norms so many rows in less time than a launch of the norm's
// own takes.
bool norms_quickly(const StreamProduct* products, int count, int64_t rows);

// Products of the same rows (1 to most_stream_rows) with up to most_stream_products matrices of the
// same number of columns, in one overlapped launch. Outputs overlap neither each other nor the
// input: a residual that this launch norms it may not add to. Throws Error where
// the columns do not fit (above about 100,000 for one row, 13,000 for eight).
void stream_matmul(cudaStream_t stream, const StreamInput& input, int64_t rows,
                   const StreamProduct* products, int count);

}  // namespace qnext::ops::cuda
