#include "model/preset.h"

#include "base/error.h"

namespace qnext {

namespace {

struct SizeName {
  std::string_view option;
  const char* field;  // of config.json
};

constexpr SizeName sizes[] = {
    {"layers", "num_hidden_layers"},
    {"hidden-size", "hidden_size"},
    {"vocabulary-size", "vocab_size"},
    {"attention-heads", "num_attention_heads"},
    {"kv-heads", "num_key_value_heads"},
    {"head-dim", "head_dim"},
    {"full-attention-interval", "full_attention_interval"},
    {"linear-key-heads", "linear_num_key_heads"},
    {"linear-value-heads", "linear_num_value_heads"},
    {"linear-key-head-dim", "linear_key_head_dim"},
    {"linear-value-head-dim", "linear_value_head_dim"},
    {"linear-conv-width", "linear_conv_kernel_dim"},
    {"experts", "num_experts"},
    {"experts-per-token", "num_experts_per_tok"},
    {"expert-width", "moe_intermediate_size"},
    {"shared-expert-width", "shared_expert_intermediate_size"},
    {"dense-width", "intermediate_size"},
    {"sparse-step", "decoder_sparse_step"},
    {"context", "max_position_embeddings"},
};

constexpr std::string_view qwen3_next_80b = "qwen3-next-80b-a3b";

json::Value qwen3_next_80b_config() {
  return json::Object{
      {"architectures", json::Array{"Qwen3NextForCausalLM"}},
      {"model_type", "qwen3_next"},
      {"attention_bias", false},
      {"bos_token_id", 151643},
      {"decoder_sparse_step", 1},
      {"eos_token_id", 151645},
      {"full_attention_interval", 4},
      {"head_dim", 256},
      {"hidden_act", "silu"},
      {"hidden_size", 2048},
      {"intermediate_size", 5120},
      {"linear_conv_kernel_dim", 4},
      {"linear_key_head_dim", 128},
      {"linear_num_key_heads", 16},
      {"linear_num_value_heads", 32},
      {"linear_value_head_dim", 128},
      {"max_position_embeddings", 262144},
      {"mlp_only_layers", json::Array{}},
      {"moe_intermediate_size", 512},
      {"norm_topk_prob", true},
      {"num_attention_heads", 16},
      {"num_experts", 512},
      {"num_experts_per_tok", 10},
      {"num_hidden_layers", 48},
      {"num_key_value_heads", 2},
      {"partial_rotary_factor", 0.25},
      {"rms_norm_eps", 1e-6},
      {"rope_scaling", nullptr},
      {"rope_theta", 10000000},
      {"shared_expert_intermediate_size", 512},
      {"tie_word_embeddings", false},
      {"torch_dtype", "bfloat16"},
      {"vocab_size", 151936},
  };
}

}  // namespace

std::vector<std::string> preset_names() {
  return {std::string(qwen3_next_80b)};
}

json::Value preset_config(std::string_view name) {
  if (name == qwen3_next_80b) return qwen3_next_80b_config();
  fail("unknown preset \"{}\"; known: {}", name, fmt::join(preset_names(), ", "));
}

std::vector<std::string> size_names() {
  std::vector<std::string> names;
  for (const SizeName& size : sizes) names.emplace_back(size.option);
  return names;
}

void set_size(json::Value& config, std::string_view name, int64_t value) {
  if (value < 0) fail("{} = {} must not be negative", name, value);
  for (const SizeName& size : sizes)
    if (size.option == name) {
      config.as_object().set(size.field, value);
      return;
    }
  fail("unknown size \"{}\"; known: {}", name, fmt::join(size_names(), ", "));
}

}  // namespace qnext
