// moe.h on the GPU; conventions in ops/batch_cuda.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ops/moe/moe.h"

namespace qnext::ops::cuda {

// As ops::route; with shared_gate [rows] not null, slot top_k of every row is the shared expert,
// whose id is `experts` and whose weight sigmoid(shared_gate). chosen[e] becomes 1 for every expert
// that a row chose; the others stay. A NaN logit counts as the smallest.
void route(cudaStream_t stream, const float* logits, int64_t rows, int64_t experts, int64_t top_k,
           bool renormalize, const float* shared_gate, int32_t* ids, float* weights,
           int64_t slot_stride, uint8_t* chosen);

// A dense layer's slots: expert 0, weight 1.
void route_to_one(cudaStream_t stream, int64_t rows, int32_t* ids, float* weights, uint8_t* chosen);

// Bytes of workspace that gated_experts() needs.
size_t gated_experts_workspace(int64_t rows, int64_t slots, int64_t largest_width);

// y [rows, hidden] += as in moe.h. experts: on the device, their matrices as matmul_cuda.h wants
// them; largest_width is that of the widest. Every (row, slot) reads its expert on its own.
void gated_experts(cudaStream_t stream, const float* x, int64_t x_stride, int64_t rows,
                   int64_t hidden, const GatedExpert* experts, int64_t largest_width,
                   const int32_t* ids, const float* weights, int64_t slots, float* y,
                   int64_t y_stride, void* workspace);

}  // namespace qnext::ops::cuda
