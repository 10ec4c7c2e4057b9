// Which tensors a model needs, under the names of the Hugging Face checkpoints.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/config.h"

namespace qnext {

// Matrices are [out, in]. H hidden_size, V vocabulary_size.
enum class WeightRole {
  embedding,    // [V, H]
  final_norm,   // [H], zero-centred, as all norms but delta_norm
  lm_head,      // [V, H]
  input_norm,   // [H], before the mixer
  middle_norm,  // [H], before the mlp: "post_attention_layernorm"

  q_proj,  // [attention_heads * 2 * head_dim, H]: per head the query, then its gate
  k_proj,  // [kv_heads * head_dim, H]
  v_proj,  // [kv_heads * head_dim, H]
  o_proj,  // [H, attention_heads * head_dim]
  q_bias,  // [rows of the projection], where attention_bias
  k_bias,
  v_bias,
  o_bias,
  q_norm,  // [head_dim]
  k_norm,  // [head_dim]

  delta_in_proj_qkvz,  // [2 * key width + 2 * value width, H], grouped by key head
  delta_in_proj_ba,    // [2 * value heads, H], grouped by key head
  delta_conv1d,        // [2 * key width + value width, 1, conv width]
  delta_a_log,         // [value heads]
  delta_dt_bias,       // [value heads]
  delta_norm,          // [value head_dim], plain
  delta_out_proj,      // [H, value width]

  router,              // [experts, H]
  expert_gate,         // [expert_width, H]
  expert_up,           // [expert_width, H]
  expert_down,         // [H, expert_width]
  shared_gate,         // [shared_expert_width, H]
  shared_up,           // [shared_expert_width, H]
  shared_down,         // [H, shared_expert_width]
  shared_expert_gate,  // [1, H]: how much of the shared expert enters
  dense_gate,          // [dense_width, H]
  dense_up,            // [dense_width, H]
  dense_down,          // [H, dense_width]

  mtp_fc,              // [H, 2 * H]: the embedding half first
  mtp_norm,            // [H]
  mtp_embedding_norm,  // [H]
  mtp_hidden_norm,     // [H]
};

struct WeightSpec {
  std::string name;
  std::vector<int64_t> shape;
  WeightRole role = WeightRole::embedding;
  bool mtp = false;       // part of the MTP head, which is there as a whole or not at all
  bool optional = false;  // mtp, and lm_head where the embeddings are tied
  int layer = -1;         // of the model or of the MTP head; -1 outside layers
  int expert = -1;
};

// All tensors in the order of the forward pass: embedding, layers, final norm, lm_head, MTP head.
// (The MTP head uses the model's embedding and lm_head.)
std::vector<WeightSpec> weight_schema(const Config& config);

// Whether the FP8 release converts weights of this role; the rest stay in bf16.
bool stored_in_fp8(WeightRole role);

constexpr int64_t fp8_block = 128;
// "x.weight" to "x.weight_scale_inv": [ceil(rows / 128), ceil(columns / 128)], multiplied with the
// values of a block.
std::string fp8_scale_name(std::string_view weight_name);
std::vector<int64_t> fp8_scale_shape(const std::vector<int64_t>& weight_shape);

struct WeightReport {
  bool has_mtp = false;
  bool has_lm_head = false;          // a matrix of its own, even where the config ties it
  std::vector<std::string> unknown;  // tensors of the checkpoint that the model does not use
  size_t bytes = 0;                  // of the tensors that it uses
};

// Throws one Error naming the tensor: absent; another shape than the config implies; not F32, F16,
// BF16, F8_E4M3 or a block type; an FP8 matrix without proper scales; part of an MTP head.
WeightReport check_weights(const Config& config, const Checkpoint& checkpoint);

}  // namespace qnext
