// causal_conv.h on the GPU; conventions in ops/batch_cuda.h.
#pragma once

#include "ops/batch_cuda.h"

namespace qnext::ops::cuda {

// x, y [batch.rows, channels]; weight [channels, width]. Every sequence starts from
// its state_in and stores the state after each row that names a slot: [width - 1, channels] of
// `states`, oldest first. y does not overlap x.
void causal_conv(cudaStream_t stream, const Batch& batch, const float* x, int64_t x_stride,
                 const float* weight, int64_t channels, int64_t width, const States& states,
                 float* y, int64_t y_stride);

}  // namespace qnext::ops::cuda
