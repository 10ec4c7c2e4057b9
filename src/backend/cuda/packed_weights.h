// The model's weights as the tensor-core kernels read them: every matrix packed
// (ops/matmul/packed_matrix_cuda.h), vectors in fp32, all on the GPU.
#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "backend/common/weights.h"
#include "ops/matmul/packed_matrix_cuda.h"
#include "ops/moe/packed_experts_cuda.h"

namespace qnext::backend::cuda {

using ops::cuda::PackedMatrix;

struct PackedAttention {
  PackedMatrix q;  // [heads * 2 * head_dim, hidden]: per head the query, then its gate
  PackedMatrix k;  // [kv_heads * head_dim, hidden]
  PackedMatrix v;  // [kv_heads * head_dim, hidden]
  PackedMatrix o;  // [hidden, heads * head_dim]
  Vector q_norm;   // [head_dim]
  Vector k_norm;   // [head_dim]
};

struct PackedDelta {
  PackedMatrix qkvz;  // grouped by key head: q[dk] k[dk] v[r * dv] z[r * dv]
  PackedMatrix ba;    // grouped by key head: b[r] a[r]
  PackedMatrix out;   // [hidden, value_heads * dv]
  Vector conv;        // [channels, width]
  Vector a_log;       // [value_heads]
  Vector dt_bias;     // [value_heads]
  Vector norm;        // [dv], plain
};

// A dense layer is one expert without a router.
struct PackedMlp {
  std::optional<PackedMatrix> router;       // [experts, hidden]
  std::optional<PackedMatrix> shared_gate;  // [1, hidden]
  ops::cuda::PackedExperts experts;         // routed ones, then the shared one if any
};

struct PackedLayer {
  Vector input_norm;           // [hidden]
  Vector post_attention_norm;  // [hidden]
  std::variant<PackedAttention, PackedDelta> mixer;
  PackedMlp mlp;
};

struct PackedMtp {
  Vector embedding_norm;  // [hidden]
  Vector hidden_norm;     // [hidden]
  PackedMatrix fc;        // [hidden, 2 * hidden]: embedding first
  PackedLayer layer;
  Vector norm;  // [hidden]
  // [vocabulary, hidden], the model's in 4 bits, for drafts: guesses that the model judges.
  PackedMatrix draft_head;
};

struct PackedModel {
  ops::WeightMatrix embedding;  // [vocabulary, hidden], row-major, f32, f16 or bf16
  std::vector<PackedLayer> layers;
  Vector norm;  // [hidden]
  PackedMatrix lm_head;
  std::optional<PackedMtp> mtp;
  size_t bytes = 0;
};

}  // namespace qnext::backend::cuda
