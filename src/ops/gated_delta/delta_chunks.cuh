// Private to the chunked delta rule: which rows a chunk holds, and what the kernels hand each other
// in the workspace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/gated_delta/chunked_delta_cuda.h"
#include "ops/gated_delta/delta_channel.cuh"
#include "ops/gated_delta/delta_tiles.cuh"

namespace qnext::ops::cuda {

constexpr int chunk_rows = 64;
constexpr int most_group = 4;  // value heads a key head: what shared memory holds of a chunk

// Per token of a chunk: recall[i] = beta_i exp(c_i) |k_i|^-1 multiplies (K S)_i, read[i] =
// exp(c_i) |q_i|^-1 key_dim^-0.5 multiplies (Q S)_i: the tiles hold q and k as the silu leaves
// them, rounded once; every norm is a factor of a row. decay = exp(c_last) multiplies S.
struct ChunkFactors {
  float recall[chunk_rows];
  float read[chunk_rows];
  float decay;
  float padding[127];
};
static_assert(sizeof(ChunkFactors) == 1024);

// The workspace, chunk by chunk. keys: of each key head the tiles of Q, then those of K, 64 columns
// each. heads: of each value head G [key_dim][64 tokens], P [64][64 tokens], ChunkFactors. values:
// of each value head the tiles of diag(beta) V.
struct ChunkedWorkspace {
  std::byte* keys;
  std::byte* heads;
  std::byte* values;
  int keys_size;  // of one key head's part of a chunk
  int heads_size;
  int values_size;

  ChunkedWorkspace(const DeltaLayer& layer, int64_t chunks, void* workspace)
      : keys_size(static_cast<int>(2 * layer.shape.key_dim) * tile_row_bytes),
        heads_size(static_cast<int>(layer.shape.key_dim) * tile_row_bytes + tile_size +
                   static_cast<int>(sizeof(ChunkFactors))),
        values_size(static_cast<int>(layer.shape.value_dim) * tile_row_bytes) {
    keys = static_cast<std::byte*>(workspace);
    heads = keys + chunks * layer.shape.key_heads * keys_size;
    values = heads + chunks * layer.shape.value_heads * heads_size;
  }
};

// Chunks are numbered so that no table is needed: sequence s begins at first_row / 64 + 2 s
// (first_row counted from the batch's first). It has at most rows / 64 + 2 of them.
inline int64_t most_chunks(int64_t rows, int64_t sequences) {
  return rows / chunk_rows + 2 * sequences;
}

__device__ inline int first_chunk(const Batch& batch, int sequence) {
  return (batch.sequence[sequence].first_row - batch.sequence[0].first_row) / chunk_rows +
         2 * sequence;
}
__device__ inline int chunks_of(const SequenceRows& sequence) {
  if (sequence.rows == 0) return 0;
  return (sequence.first_position % chunk_rows + sequence.rows + chunk_rows - 1) / chunk_rows;
}

// Rows of a chunk that exist are begin <= i < end; row i is the sequence's row first + i.
struct Chunk {
  int begin;
  int end;
  int first;

  __device__ Chunk(const SequenceRows& sequence, int of_sequence) {
    first = of_sequence * chunk_rows - sequence.first_position % chunk_rows;
    begin = max(0, -first);
    end = min(chunk_rows, sequence.rows - first);
  }
};

void prepare_chunks(cudaStream_t stream, const Batch& batch, const DeltaLayer& layer,
                    const DeltaRows& rows, const States& conv_states,
                    const ChunkedWorkspace& workspace);

void scan_chunks(cudaStream_t stream, const Batch& batch, const DeltaLayer& layer,
                 const DeltaRows& rows, const States& conv_states, const DeltaStates& states,
                 const ChunkedWorkspace& workspace, Bf16* out, int64_t out_stride);

}  // namespace qnext::ops::cuda
