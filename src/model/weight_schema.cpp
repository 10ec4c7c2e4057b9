#include "model/weight_schema.h"

#include "base/error.h"

namespace qnext {

namespace {

class SchemaBuilder {
 public:
  explicit SchemaBuilder(const Config& config) : c_(config) {}

  std::vector<WeightSpec> build() {
    const int64_t hidden = c_.hidden_size;
    add("model.embed_tokens.weight", {c_.vocabulary_size, hidden}, WeightRole::embedding);
    for (size_t i = 0; i < c_.layers.size(); ++i)
      add_layer(fmt::format("model.layers.{}.", i), static_cast<int>(i), c_.layers[i]);
    add("model.norm.weight", {hidden}, WeightRole::final_norm);
    add("lm_head.weight", {c_.vocabulary_size, hidden}, WeightRole::lm_head);
    out_.back().optional = c_.tie_word_embeddings;
    if (c_.mtp_layers > 0) add_mtp();
    return std::move(out_);
  }

 private:
  void add(std::string name, std::vector<int64_t> shape, WeightRole role) {
    out_.push_back({std::move(name), std::move(shape), role, mtp_, mtp_, layer_, expert_});
  }

  void add_layer(const std::string& prefix, int layer, LayerKind kind) {
    layer_ = layer;
    add(prefix + "input_layernorm.weight", {c_.hidden_size}, WeightRole::input_norm);
    if (kind.mixer == Mixer::full_attention)
      add_attention(prefix + "self_attn.");
    else
      add_delta_net(prefix + "linear_attn.");
    add(prefix + "post_attention_layernorm.weight", {c_.hidden_size}, WeightRole::middle_norm);
    if (kind.mlp == Mlp::sparse)
      add_experts(prefix + "mlp.");
    else
      add_mlp(prefix + "mlp.", c_.dense_width, WeightRole::dense_gate, WeightRole::dense_up,
              WeightRole::dense_down);
    layer_ = -1;
  }

  void add_attention(const std::string& prefix) {
    const int64_t query = c_.attention_heads * c_.head_dim;
    const int64_t kv = c_.kv_heads * c_.head_dim;
    add(prefix + "q_proj.weight", {2 * query, c_.hidden_size}, WeightRole::q_proj);
    add(prefix + "k_proj.weight", {kv, c_.hidden_size}, WeightRole::k_proj);
    add(prefix + "v_proj.weight", {kv, c_.hidden_size}, WeightRole::v_proj);
    add(prefix + "o_proj.weight", {c_.hidden_size, query}, WeightRole::o_proj);
    if (c_.attention_bias) {
      add(prefix + "q_proj.bias", {2 * query}, WeightRole::q_bias);
      add(prefix + "k_proj.bias", {kv}, WeightRole::k_bias);
      add(prefix + "v_proj.bias", {kv}, WeightRole::v_bias);
      add(prefix + "o_proj.bias", {c_.hidden_size}, WeightRole::o_bias);
    }
    add(prefix + "q_norm.weight", {c_.head_dim}, WeightRole::q_norm);
    add(prefix + "k_norm.weight", {c_.head_dim}, WeightRole::k_norm);
  }

  void add_delta_net(const std::string& prefix) {
    const int64_t key = c_.linear_key_width();
    const int64_t value = c_.linear_value_width();
    const int64_t heads = c_.linear_value_heads;
    add(prefix + "in_proj_qkvz.weight", {2 * key + 2 * value, c_.hidden_size},
        WeightRole::delta_in_proj_qkvz);
    add(prefix + "in_proj_ba.weight", {2 * heads, c_.hidden_size}, WeightRole::delta_in_proj_ba);
    add(prefix + "conv1d.weight", {c_.linear_conv_channels(), 1, c_.linear_conv_width},
        WeightRole::delta_conv1d);
    add(prefix + "A_log", {heads}, WeightRole::delta_a_log);
    add(prefix + "dt_bias", {heads}, WeightRole::delta_dt_bias);
    add(prefix + "norm.weight", {c_.linear_value_head_dim}, WeightRole::delta_norm);
    add(prefix + "out_proj.weight", {c_.hidden_size, value}, WeightRole::delta_out_proj);
  }

  void add_mlp(const std::string& prefix, int64_t width, WeightRole gate, WeightRole up,
               WeightRole down) {
    add(prefix + "gate_proj.weight", {width, c_.hidden_size}, gate);
    add(prefix + "up_proj.weight", {width, c_.hidden_size}, up);
    add(prefix + "down_proj.weight", {c_.hidden_size, width}, down);
  }

  void add_experts(const std::string& prefix) {
    add(prefix + "gate.weight", {c_.experts, c_.hidden_size}, WeightRole::router);
    for (int64_t i = 0; i < c_.experts; ++i) {
      expert_ = static_cast<int>(i);
      add_mlp(fmt::format("{}experts.{}.", prefix, i), c_.expert_width, WeightRole::expert_gate,
              WeightRole::expert_up, WeightRole::expert_down);
    }
    expert_ = -1;
    if (c_.shared_expert_width == 0) return;
    add_mlp(prefix + "shared_expert.", c_.shared_expert_width, WeightRole::shared_gate,
            WeightRole::shared_up, WeightRole::shared_down);
    add(prefix + "shared_expert_gate.weight", {1, c_.hidden_size}, WeightRole::shared_expert_gate);
  }

  void add_mtp() {
    const int64_t hidden = c_.hidden_size;
    mtp_ = true;
    add("mtp.pre_fc_norm_embedding.weight", {hidden}, WeightRole::mtp_embedding_norm);
    add("mtp.pre_fc_norm_hidden.weight", {hidden}, WeightRole::mtp_hidden_norm);
    add("mtp.fc.weight", {hidden, 2 * hidden}, WeightRole::mtp_fc);
    for (int64_t i = 0; i < c_.mtp_layers; ++i)
      add_layer(fmt::format("mtp.layers.{}.", i), static_cast<int>(i), c_.mtp_layer());
    add("mtp.norm.weight", {hidden}, WeightRole::mtp_norm);
    mtp_ = false;
  }

  const Config& c_;
  std::vector<WeightSpec> out_;
  bool mtp_ = false;
  int layer_ = -1;
  int expert_ = -1;
};

}  // namespace

std::vector<WeightSpec> weight_schema(const Config& config) {
  return SchemaBuilder(config).build();
}

bool stored_in_fp8(WeightRole role) {
  switch (role) {
    case WeightRole::q_proj:
    case WeightRole::k_proj:
    case WeightRole::v_proj:
    case WeightRole::o_proj:
    case WeightRole::delta_in_proj_qkvz:
    case WeightRole::delta_out_proj:
    case WeightRole::expert_gate:
    case WeightRole::expert_up:
    case WeightRole::expert_down:
    case WeightRole::shared_gate:
    case WeightRole::shared_up:
    case WeightRole::shared_down:
    case WeightRole::dense_gate:
    case WeightRole::dense_up:
    case WeightRole::dense_down:
      return true;
    default:
      return false;
  }
}

std::string fp8_scale_name(std::string_view weight_name) {
  return std::string(weight_name) + "_scale_inv";
}

std::vector<int64_t> fp8_scale_shape(const std::vector<int64_t>& weight_shape) {
  std::vector<int64_t> shape;
  for (int64_t size : weight_shape) shape.push_back((size + fp8_block - 1) / fp8_block);
  return shape;
}

}  // namespace qnext
