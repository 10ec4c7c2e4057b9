// rope.h on the GPU; conventions in ops/batch_cuda.h.
#pragma once

#include "ops/batch_cuda.h"

namespace qnext::ops::cuda {

// cosine, sine [rows, half] of every row's position: the angle is the fp32 product of position and
// inverse_frequency [half] (rope.h's table, copied to the device), its cosine and sine are taken in
// fp64 and rounded, then multiplied by attention_factor.
void rope_angles(cudaStream_t stream, const Batch& batch, const float* inverse_frequency,
                 int64_t half, float attention_factor, float* cosine, float* sine);

// The heads of one projection, [rows, heads, width] with any strides: head h of row r begins at
// base + r * row_stride + h * head_stride.
struct Heads {
  float* base = nullptr;
  int64_t row_stride = 0;
  int64_t head_stride = 0;
  int64_t heads = 0;
  const float* norm_weight = nullptr;  // [width], zero-centred
};

// Every query and key head in place: rms_norm with eps over `width`, then the rotation of its first
// 2 * half dimensions by the row's angles.
void prepare_heads(cudaStream_t stream, const Heads& queries, const Heads& keys, int64_t rows,
                   int64_t width, float eps, const float* cosine, const float* sine, int64_t half);

}  // namespace qnext::ops::cuda
