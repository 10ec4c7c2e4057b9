// The prompt form of a Gated DeltaNet mixer: everything between the projections and out_proj
// (delta_layer_cuda.h) for long runs of rows, in the chunked form of gated_delta.h on the tensor
// cores.
//
// Chunks of 64 positions begin at multiples of 64; the first and last of a step may be partial.
// With per chunk c = cumsum(g), Gamma_ij = exp(c_i - c_j) for i >= j and
// A = (I + strictLower(diag(beta) (K K^T . Gamma)))^-1, one matrix product less on the serial chain
// than in the paper's form: V' never appears, because
//
//   R  = diag(beta) V - diag(beta exp c) K S
//   O  = diag(exp c) Q S + P R            P = (tril(Q K^T) . Gamma) A
//   S+ = exp(c_last) S + G R              G = K^T diag(exp(c_last - c)) A
//
// P and G do not depend on S and are made for all chunks at once. Operands of the products are
// bf16, sums fp32, and S itself stays fp32 from chunk to chunk (and in the slots, in that format).
#pragma once

#include "ops/gated_delta/delta_layer_cuda.h"

namespace qnext::ops::cuda {

// key_dim 64 or 128; value_dim 64 or 128; up to 4 value heads a key head; convolutions up to 4
// wide. For other sizes the plain operations (gated_delta_cuda.h) remain.
bool chunked_delta_takes(const DeltaLayer& layer);

// Bytes of workspace that chunked_delta needs for batches of up to so many rows and sequences.
int64_t chunked_delta_workspace(const DeltaLayer& layer, int64_t rows, int64_t sequences);

// out [rows, value_width()] bf16, rows out_stride elements apart (a multiple of 8, 16-byte
// aligned). Of a sequence only the last row may name a slot in batch.state_out. Sequences lie in
// ascending rows without gaps. workspace: 1024-byte aligned, at least chunked_delta_workspace();
// its contents mean nothing before or after.
//
// A row's bits depend on its sequence alone; a prompt cut at multiples of 64 gives the same bits as
// whole (with S in fp32). Throws Error for a layer it does not take.
void chunked_delta(cudaStream_t stream, const Batch& batch, const DeltaLayer& layer,
                   const DeltaRows& rows, const States& conv_states, const DeltaStates& states,
                   Bf16* out, int64_t out_stride, void* workspace);

}  // namespace qnext::ops::cuda
