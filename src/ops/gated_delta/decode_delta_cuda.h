// The answer form of a Gated DeltaNet mixer: one launch between the projections and out_proj
// (delta_layer_cuda.h says what it computes). For decode rows and drafts: few rows a sequence, one
// after the other; a row's bits depend on that row and its sequence's state alone, so rows taken
// together give what rows taken one by one give.
#pragma once

#include "ops/gated_delta/delta_layer_cuda.h"

namespace qnext::ops::cuda {

// key_dim 64 or 128; value_dim a multiple of 32 with value_dim / 32 * group <= 16; convolutions up
// to 4 wide. For other sizes the plain operations (gated_delta_cuda.h) remain.
bool decode_delta_takes(const DeltaLayer& layer);

// out [batch.rows, value_width()] bf16, rows out_stride elements apart. S and the convolution's
// state are stored after every row that names a slot. With S in bf16 it is rounded after every row,
// stored or not, lest the bits depend on which rows share a step.
//
// states_at_rest promises that S of the slots read here was written before the last full dependency
// on this stream (a graph launch's begin, a copy, a synchronisation), as the state from the step
// before is: S is then fetched before the kernels just ahead have ended. batch and the layer's
// weights must be at rest always. Throws Error for a layer it does not take.
void decode_delta(cudaStream_t stream, const Batch& batch, const DeltaLayer& layer,
                  const DeltaRows& rows, const States& conv_states, const DeltaStates& states,
                  bool states_at_rest, Bf16* out, int64_t out_stride);

}  // namespace qnext::ops::cuda
