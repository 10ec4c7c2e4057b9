// The sizes of a Qwen3-Next model, read from the config.json of a Hugging Face checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace qnext {

enum class Mixer { full_attention, gated_delta_net };
enum class Mlp { sparse, dense };

struct LayerKind {
  Mixer mixer = Mixer::gated_delta_net;
  Mlp mlp = Mlp::sparse;
  bool operator==(const LayerKind&) const = default;
};

// Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models".
struct Yarn {
  double factor = 1;
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  double attention_factor = 1;  // multiplies cos and sin; 0.1 ln(factor) + 1 unless given
  bool truncate = true;         // the correction range is rounded outwards to whole dimensions
  bool operator==(const Yarn&) const = default;
};

struct Rope {
  double theta = 10000;
  int64_t rotary_dims = 0;  // the first dimensions of a head that turn; even, <= head_dim
  std::optional<Yarn> yarn;
  bool operator==(const Rope&) const = default;
};

// How the matrices are stored. fp8: E4M3 with one scale for each block of 128 x 128, except in
// modules that the release leaves alone; which tensors are FP8 the checkpoint itself says.
enum class Quantization { none, fp8 };

struct Config {
  int64_t vocabulary_size = 0;
  int64_t hidden_size = 0;
  std::vector<LayerKind> layers;

  // Full attention.
  int64_t attention_heads = 0;
  int64_t kv_heads = 0;  // divides attention_heads
  int64_t head_dim = 0;
  bool attention_bias = false;  // q_proj, k_proj, v_proj and o_proj have biases
  Rope rope;

  // Gated DeltaNet.
  int64_t linear_key_heads = 0;
  int64_t linear_value_heads = 0;  // a multiple of linear_key_heads
  int64_t linear_key_head_dim = 0;
  int64_t linear_value_head_dim = 0;
  int64_t linear_conv_width = 0;

  // Mixture of experts; experts is 0 where every layer is dense.
  int64_t experts = 0;
  int64_t experts_per_token = 0;
  int64_t expert_width = 0;
  int64_t shared_expert_width = 0;  // 0: no shared expert
  bool norm_topk_prob = true;       // the chosen probabilities are renormalised to sum 1
  int64_t dense_width = 0;          // of the dense layers: "intermediate_size"

  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;  // lm_head is the embedding matrix
  int64_t max_position_embeddings = 0;
  int64_t mtp_layers = 1;  // layers of the MTP head where the checkpoint has one; 0 or 1
  Quantization quantization = Quantization::none;

  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> bos_token_id;

  // Values per key head and the widths that follow from it.
  int64_t value_heads_per_key_head() const { return linear_value_heads / linear_key_heads; }
  int64_t linear_key_width() const { return linear_key_heads * linear_key_head_dim; }
  int64_t linear_value_width() const { return linear_value_heads * linear_value_head_dim; }
  // Channels of the convolution: all q, all k, all v.
  int64_t linear_conv_channels() const { return 2 * linear_key_width() + linear_value_width(); }
  // The kind of the MTP head's layer: attention, and experts where the model has them.
  LayerKind mtp_layer() const {
    return {Mixer::full_attention, experts > 0 ? Mlp::sparse : Mlp::dense};
  }
  // Tokens that the model was made for: max_position_embeddings, or what YaRN stretches to.
  int64_t context_length() const;

  bool operator==(const Config&) const = default;
};

// Reads both styles of config.json: rope_theta, partial_rotary_factor and rope_scaling at the top,
// or nested in rope_parameters; layer_types or full_attention_interval. Absent and null fields take
// the defaults of transformers' Qwen3NextConfig.
// Throws Error naming `what` and the field: another model_type, activation, rope type or
// quantisation; sizes that are out of range or do not divide; an unknown layer type.
Config parse_config(const json::Value& value, std::string_view what = "config.json");

// folder/config.json.
Config load_config(const std::string& folder);

}  // namespace qnext
