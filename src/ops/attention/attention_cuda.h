// attention.h on the GPU; conventions in ops/batch_cuda.h. The softmax runs online over absolute
// blocks of attention_block positions in ascending order.
#pragma once

#include "ops/attention/attention.h"
#include "ops/batch_cuda.h"

namespace qnext::ops::cuda {

// shape, cache (its base a device pointer, f32 or bf16) and inputs (device pointers) mean what they
// mean on the CPU. Errors: head_dim over 1024; a cache of another type.

// Stores keys and values [batch.rows, kv_heads * head_dim] of all rows at their positions.
void kv_write(cudaStream_t stream, const Batch& batch, const AttentionShape& shape,
              const KvCache& cache, const float* keys, const float* values, int64_t row_stride);

// out [batch.rows, query_heads * head_dim]. Call kv_write first. No workspace.
void attention(cudaStream_t stream, const Batch& batch, const AttentionShape& shape,
               const KvCache& cache, const AttentionInputs& inputs, float* out, int64_t out_stride);

}  // namespace qnext::ops::cuda
