#include "model/gguf_layout.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace qnext {

namespace {

// Behind "blk.N." where the weight is part of a layer.
std::string_view name_of(WeightRole role) {
  switch (role) {
    case WeightRole::embedding:
      return "token_embd.weight";
    case WeightRole::final_norm:
      return "output_norm.weight";
    case WeightRole::lm_head:
      return "output.weight";
    case WeightRole::input_norm:
      return "attn_norm.weight";
    case WeightRole::middle_norm:
      return "post_attention_norm.weight";
    case WeightRole::q_proj:
      return "attn_q.weight";
    case WeightRole::k_proj:
      return "attn_k.weight";
    case WeightRole::v_proj:
      return "attn_v.weight";
    case WeightRole::o_proj:
      return "attn_output.weight";
    case WeightRole::q_bias:
      return "attn_q.bias";
    case WeightRole::k_bias:
      return "attn_k.bias";
    case WeightRole::v_bias:
      return "attn_v.bias";
    case WeightRole::o_bias:
      return "attn_output.bias";
    case WeightRole::q_norm:
      return "attn_q_norm.weight";
    case WeightRole::k_norm:
      return "attn_k_norm.weight";
    case WeightRole::delta_in_proj_qkvz:
      return "ssm_in.weight";
    case WeightRole::delta_in_proj_ba:
      return "ssm_ba.weight";
    case WeightRole::delta_conv1d:
      return "ssm_conv1d.weight";
    case WeightRole::delta_a_log:
      return "ssm_a";
    case WeightRole::delta_dt_bias:
      return "ssm_dt.bias";
    case WeightRole::delta_norm:
      return "ssm_norm.weight";
    case WeightRole::delta_out_proj:
      return "ssm_out.weight";
    case WeightRole::router:
      return "ffn_gate_inp.weight";
    case WeightRole::expert_gate:
      return "ffn_gate_exps.weight";
    case WeightRole::expert_up:
      return "ffn_up_exps.weight";
    case WeightRole::expert_down:
      return "ffn_down_exps.weight";
    case WeightRole::shared_gate:
      return "ffn_gate_shexp.weight";
    case WeightRole::shared_up:
      return "ffn_up_shexp.weight";
    case WeightRole::shared_down:
      return "ffn_down_shexp.weight";
    case WeightRole::shared_expert_gate:
      return "ffn_gate_inp_shexp.weight";
    case WeightRole::dense_gate:
      return "ffn_gate.weight";
    case WeightRole::dense_up:
      return "ffn_up.weight";
    case WeightRole::dense_down:
      return "ffn_down.weight";
    case WeightRole::mtp_fc:
      return "nextn.eh_proj.weight";
    case WeightRole::mtp_norm:
      return "nextn.shared_head_norm.weight";
    case WeightRole::mtp_embedding_norm:
      return "nextn.enorm.weight";
    case WeightRole::mtp_hidden_norm:
      return "nextn.hnorm.weight";
  }
  return "";
}

class Layout {
 public:
  Layout(const Config& config, bool with_mtp) : c_(config) {
    for (const WeightSpec& spec : weight_schema(c_)) {
      if (spec.mtp && !with_mtp) continue;
      if (spec.role == WeightRole::lm_head && c_.tie_word_embeddings) continue;
      place(spec);
    }
  }

  std::vector<GgufTensor> take() { return std::move(tensors_); }

 private:
  void place(const WeightSpec& spec) {
    switch (spec.role) {
      case WeightRole::delta_in_proj_qkvz:
        return place_qkvz(spec);
      case WeightRole::expert_gate:
      case WeightRole::expert_up:
      case WeightRole::expert_down: {
        GgufTensor& tensor =
            find_or_add(spec, gguf_name(c_, spec), {c_.experts, spec.shape[0], spec.shape[1]});
        tensor.rows.push_back({spec.name, 0, spec.shape[0]});
        return;
      }
      default:
        break;
    }
    std::vector<int64_t> shape = spec.shape;
    if (spec.role == WeightRole::delta_conv1d) shape = {shape[0], shape[2]};
    if (spec.role == WeightRole::shared_expert_gate) shape = {shape[1]};
    GgufTensor& tensor = find_or_add(spec, gguf_name(c_, spec), std::move(shape));
    tensor.rows.push_back({spec.name, 0, spec.shape.size() == 1 ? 1 : spec.shape[0]});
  }

  // Grouped by key head: q[dk] k[dk] v[r * dv] z[r * dv].
  void place_qkvz(const WeightSpec& spec) {
    const int64_t key = c_.linear_key_head_dim;
    const int64_t value = c_.value_heads_per_key_head() * c_.linear_value_head_dim;
    const int64_t group = 2 * key + 2 * value;
    const auto gather = [&](GgufTensor& tensor, int64_t first, int64_t count) {
      for (int64_t head = 0; head < c_.linear_key_heads; ++head)
        tensor.rows.push_back({spec.name, head * group + first, count});
    };
    GgufTensor& qkv = find_or_add(spec, gguf_layer_name(c_, spec, "attn_qkv.weight"),
                                  {c_.linear_conv_channels(), c_.hidden_size});
    gather(qkv, 0, key);
    gather(qkv, key, key);
    gather(qkv, 2 * key, value);
    GgufTensor& gate = find_or_add(spec, gguf_layer_name(c_, spec, "attn_gate.weight"),
                                   {c_.linear_value_width(), c_.hidden_size});
    gather(gate, 2 * key + value, value);
  }

  GgufTensor& find_or_add(const WeightSpec& spec, const std::string& name,
                          std::vector<int64_t> shape) {
    const auto [place, is_new] = places_.try_emplace(name, tensors_.size());
    if (is_new) tensors_.push_back({name, std::move(shape), spec, {}});
    return tensors_[place->second];
  }

  const Config& c_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t> places_;
};

}  // namespace

std::string gguf_name(const Config& config, const WeightSpec& spec) {
  const std::string_view name = name_of(spec.role);
  if (spec.layer < 0 && !spec.mtp) return std::string(name);
  return gguf_layer_name(config, spec, name);
}

std::string gguf_layer_name(const Config& config, const WeightSpec& spec, std::string_view name) {
  const int64_t layer = spec.mtp ? std::ssize(config.layers) + std::max(spec.layer, 0) : spec.layer;
  return fmt::format("blk.{}.{}", layer, name);
}

GgufChange gguf_change(WeightRole role) {
  switch (role) {
    case WeightRole::input_norm:
    case WeightRole::middle_norm:
    case WeightRole::final_norm:
    case WeightRole::q_norm:
    case WeightRole::k_norm:
    case WeightRole::mtp_norm:
    case WeightRole::mtp_embedding_norm:
    case WeightRole::mtp_hidden_norm:
      return GgufChange::plus_one;
    case WeightRole::delta_a_log:
      return GgufChange::minus_exp;
    default:
      return GgufChange::none;
  }
}

std::vector<GgufTensor> gguf_layout(const Config& config, bool with_mtp) {
  return Layout(config, with_mtp).take();
}

}  // namespace qnext
