// gated_delta.h on the GPU, recurrent form; conventions in ops/batch_cuda.h.
#pragma once

#include "ops/batch_cuda.h"
#include "ops/gated_delta/gated_delta.h"

namespace qnext::ops::cuda {

// As ops::gated_delta: qkv, a and b of `inputs` (device pointers) are overwritten: q and k
// normalised, a becomes exp(g), b beta. Every sequence starts from its state_in and stores S after
// each row that names a slot: [value_heads, key_dim, value_dim] of `states`. key_dim <= 256.
// out [batch.rows, value_heads * value_dim].
void gated_delta(cudaStream_t stream, const Batch& batch, const GatedDeltaShape& shape,
                 const GatedDeltaInputs& inputs, const States& states, float* out,
                 int64_t out_stride);

// The projections are grouped by key head; the convolution wants all q, all k, all v. With r =
// value_heads / key_heads and per key head
//   qkvz: q [key_dim], k [key_dim], v [r * value_dim], z [r * value_dim];   ba: b [r], a [r]
// fills, all dense: conv_in [rows, q | k | v of all heads], z [rows, value_heads * value_dim],
// a, b [rows, value_heads].
void ungroup_projections(cudaStream_t stream, const GatedDeltaShape& shape, int64_t rows,
                         const float* qkvz, const float* ba, float* conv_in, float* z, float* a,
                         float* b);

}  // namespace qnext::ops::cuda
