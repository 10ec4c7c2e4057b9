// A Hugging Face checkpoint as the published converter would write it to GGUF, and back: what src
// undoes is done here, row by row and on its own account.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/testing/gguf_writer.h"
#include "model/config.h"
#include "model/weight_schema.h"
#include "tensor/blocks.h"
#include "tensor/testing/random_blocks.h"

namespace qnext::testing {

struct FloatTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;

  size_t columns() const { return static_cast<size_t>(shape.back()); }
};
using FloatTensors = std::map<std::string, FloatTensor>;

// Layouts that files of different ages have.
struct GgufLayout {
  bool old_ssm_in = false;     // in_proj_qkvz as it is
  bool fused_gate_up = false;  // ffn_gate_up_exps
  bool fused_qkv = false;      // attn_qkv in full attention too
};

// Where the rows of a Hugging Face tensor lie, and what happens to their values.
struct Origin {
  enum class Change { none, plus_one, minus_exp };
  // One for each row: the tensor of the file and the row there.
  std::vector<std::pair<std::string, int64_t>> rows;
  Change change = Change::none;
};

class GgufConversion {
 public:
  GgufConversion(const Config& config, const GgufLayout& layout) : c_(config), layout_(layout) {
    for (const WeightSpec& spec : weight_schema(c_)) place(spec);
  }

  FloatTensors to_gguf(const Checkpoint& checkpoint) const {
    FloatTensors out;
    for (const auto& [name, shape] : shapes_) {
      int64_t count = 1;
      for (const int64_t size : shape) count *= size;
      out[name] = {shape, std::vector<float>(static_cast<size_t>(count), NAN)};
    }
    for (const auto& [name, origin] : origins_) {
      const std::vector<float> values = widened(checkpoint.get(name));
      each_row(origin, out, values.size(), [&](size_t from, float* to, size_t columns) {
        for (size_t i = 0; i < columns; ++i) to[i] = changed(values[from + i], origin.change);
      });
    }
    return out;
  }

  // Writes the same model as F32 safetensors, with its config.json.
  void write_twin(const std::string& folder, FloatTensors gguf, const json::Value& config) const {
    std::vector<TensorDeclaration> declarations;
    for (const WeightSpec& spec : weight_schema(c_))
      if (origins_.contains(spec.name)) declarations.push_back({spec.name, DType::f32, spec.shape});
    SafetensorsWriter writer(folder + "/model.safetensors", declarations);
    for (const TensorDeclaration& declaration : declarations) {
      const Origin& origin = origins_.at(declaration.name);
      std::vector<float> values(declaration.bytes() / sizeof(float));
      each_row(origin, gguf, values.size(), [&](size_t to, const float* from, size_t columns) {
        for (size_t i = 0; i < columns; ++i) values[to + i] = restored(from[i], origin.change);
      });
      writer.write(declaration.name, std::as_bytes(std::span(values)));
    }
    writer.finish();
    write_file(folder + "/config.json", json::write(config));
  }

  void add_metadata(GgufWriter& writer) const {
    const auto integer = [&](const char* key, int64_t value) {
      writer.add(std::string("qwen3next.") + key, static_cast<uint32_t>(value));
    };
    const auto number = [&](const char* key, double value) {
      writer.add(std::string("qwen3next.") + key, static_cast<float>(value));
    };
    writer.add("general.architecture", "qwen3next");
    integer("block_count", std::ssize(c_.layers) + c_.mtp_layers);
    if (c_.mtp_layers > 0) integer("nextn_predict_layers", c_.mtp_layers);
    integer("context_length", c_.max_position_embeddings);
    integer("embedding_length", c_.hidden_size);
    integer("feed_forward_length", c_.dense_width);
    integer("expert_count", c_.experts);
    integer("expert_used_count", c_.experts_per_token);
    integer("expert_feed_forward_length", c_.expert_width);
    integer("expert_shared_feed_forward_length", c_.shared_expert_width);
    integer("attention.head_count", c_.attention_heads);
    integer("attention.head_count_kv", c_.kv_heads);
    integer("attention.key_length", c_.head_dim);
    integer("attention.value_length", c_.head_dim);
    integer("rope.dimension_count", c_.rope.rotary_dims);
    integer("ssm.conv_kernel", c_.linear_conv_width);
    integer("ssm.state_size", c_.linear_key_head_dim);
    integer("ssm.group_count", c_.linear_key_heads);
    integer("ssm.time_step_rank", c_.linear_value_heads);
    integer("ssm.inner_size", c_.linear_value_width());
    number("rope.freq_base", c_.rope.theta);
    number("attention.layer_norm_rms_epsilon", c_.rms_norm_eps);
    std::string recurrent;
    for (const LayerKind& kind : c_.layers)
      recurrent += kind.mixer == Mixer::gated_delta_net ? '\1' : '\0';
    writer.add(
        "qwen3next.attention.recurrent_layers", GgufType::array,
        GgufWriter::array_head(GgufType::boolean, recurrent.size()).append(recurrent).bytes());
    if (const auto& yarn = c_.rope.yarn) {
      writer.add("qwen3next.rope.scaling.type", "yarn");
      number("rope.scaling.factor", yarn->factor);
      integer("rope.scaling.original_context_length", yarn->original_max_position_embeddings);
    }
  }

 private:
  // Calls act(place in the Hugging Face values, row of the file's tensor, columns).
  template <typename Tensors, typename Act>
  static void each_row(const Origin& origin, Tensors& gguf, size_t count, Act&& act) {
    const size_t columns = count / origin.rows.size();
    for (size_t row = 0; row < origin.rows.size(); ++row) {
      const auto& [tensor, at] = origin.rows[row];
      act(row * columns, gguf.at(tensor).values.data() + static_cast<size_t>(at) * columns,
          columns);
    }
  }

  static float changed(float value, Origin::Change change) {
    if (change == Origin::Change::plus_one) return value + 1.0f;
    if (change == Origin::Change::minus_exp) return -std::exp(value);
    return value;
  }
  static float restored(float value, Origin::Change change) {
    if (change == Origin::Change::plus_one) return value - 1.0f;
    if (change == Origin::Change::minus_exp)
      return static_cast<float>(std::log(-static_cast<double>(value)));
    return value;
  }

  static bool is_centred_norm(WeightRole role) {
    for (const WeightRole norm :
         {WeightRole::input_norm, WeightRole::middle_norm, WeightRole::final_norm,
          WeightRole::q_norm, WeightRole::k_norm, WeightRole::mtp_norm,
          WeightRole::mtp_embedding_norm, WeightRole::mtp_hidden_norm})
      if (role == norm) return true;
    return false;
  }

  // What the file calls it, behind "blk.N." where `in_layer`.
  static std::string file_name(WeightRole role) {
    static const std::map<WeightRole, std::string> names = {
        {WeightRole::embedding, "token_embd.weight"},
        {WeightRole::final_norm, "output_norm.weight"},
        {WeightRole::lm_head, "output.weight"},
        {WeightRole::input_norm, "attn_norm.weight"},
        {WeightRole::middle_norm, "post_attention_norm.weight"},
        {WeightRole::q_proj, "attn_q.weight"},
        {WeightRole::k_proj, "attn_k.weight"},
        {WeightRole::v_proj, "attn_v.weight"},
        {WeightRole::o_proj, "attn_output.weight"},
        {WeightRole::q_bias, "attn_q.bias"},
        {WeightRole::k_bias, "attn_k.bias"},
        {WeightRole::v_bias, "attn_v.bias"},
        {WeightRole::o_bias, "attn_output.bias"},
        {WeightRole::q_norm, "attn_q_norm.weight"},
        {WeightRole::k_norm, "attn_k_norm.weight"},
        {WeightRole::delta_in_proj_ba, "ssm_ba.weight"},
        {WeightRole::delta_conv1d, "ssm_conv1d.weight"},
        {WeightRole::delta_a_log, "ssm_a"},
        {WeightRole::delta_dt_bias, "ssm_dt.bias"},
        {WeightRole::delta_norm, "ssm_norm.weight"},
        {WeightRole::delta_out_proj, "ssm_out.weight"},
        {WeightRole::router, "ffn_gate_inp.weight"},
        {WeightRole::shared_gate, "ffn_gate_shexp.weight"},
        {WeightRole::shared_up, "ffn_up_shexp.weight"},
        {WeightRole::shared_down, "ffn_down_shexp.weight"},
        {WeightRole::shared_expert_gate, "ffn_gate_inp_shexp.weight"},
        {WeightRole::dense_gate, "ffn_gate.weight"},
        {WeightRole::dense_up, "ffn_up.weight"},
        {WeightRole::dense_down, "ffn_down.weight"},
        {WeightRole::mtp_fc, "nextn.eh_proj.weight"},
        {WeightRole::mtp_norm, "nextn.shared_head_norm.weight"},
        {WeightRole::mtp_embedding_norm, "nextn.enorm.weight"},
        {WeightRole::mtp_hidden_norm, "nextn.hnorm.weight"}};
    return names.at(role);
  }

  void place(const WeightSpec& spec) {
    if (spec.role == WeightRole::lm_head && c_.tie_word_embeddings) return;
    std::string prefix;
    if (spec.mtp)
      prefix = "blk." + std::to_string(c_.layers.size()) + ".";
    else if (spec.layer >= 0)
      prefix = "blk." + std::to_string(spec.layer) + ".";
    switch (spec.role) {
      case WeightRole::delta_in_proj_qkvz:
        return place_qkvz(spec, prefix);
      case WeightRole::expert_gate:
      case WeightRole::expert_up:
      case WeightRole::expert_down:
        return place_expert(spec, prefix);
      case WeightRole::q_proj:
      case WeightRole::k_proj:
      case WeightRole::v_proj:
        if (layout_.fused_qkv) return place_attention(spec, prefix);
        break;
      default:
        break;
    }
    std::vector<int64_t> shape = spec.shape;
    if (spec.role == WeightRole::delta_conv1d) shape = {shape[0], shape[2]};
    if (spec.role == WeightRole::shared_expert_gate) shape = {shape[1]};
    Origin& origin = add_rows(spec, prefix + file_name(spec.role), shape, 0);
    if (is_centred_norm(spec.role)) origin.change = Origin::Change::plus_one;
    if (spec.role == WeightRole::delta_a_log) origin.change = Origin::Change::minus_exp;
  }

  // Rows of the spec, or its one row of values, from row `first` of a tensor on.
  Origin& add_rows(const WeightSpec& spec, const std::string& tensor,
                   const std::vector<int64_t>& shape, int64_t first) {
    shapes_[tensor] = shape;
    Origin& origin = origins_[spec.name];
    const int64_t rows = spec.shape.size() == 1 ? 1 : spec.shape[0];
    for (int64_t row = 0; row < rows; ++row) origin.rows.emplace_back(tensor, first + row);
    return origin;
  }

  void place_qkvz(const WeightSpec& spec, const std::string& prefix) {
    if (layout_.old_ssm_in) {
      add_rows(spec, prefix + "ssm_in.weight", spec.shape, 0);
      return;
    }
    const int64_t key = c_.linear_key_width(), value = c_.linear_value_width();
    const std::string qkv = prefix + "attn_qkv.weight", gate = prefix + "attn_gate.weight";
    shapes_[qkv] = {2 * key + value, c_.hidden_size};
    shapes_[gate] = {value, c_.hidden_size};
    Origin& origin = origins_[spec.name];
    const int64_t dk = c_.linear_key_head_dim;
    const int64_t rv = c_.value_heads_per_key_head() * c_.linear_value_head_dim;
    for (int64_t head = 0; head < c_.linear_key_heads; ++head) {
      for (int64_t i = 0; i < dk; ++i) origin.rows.emplace_back(qkv, head * dk + i);
      for (int64_t i = 0; i < dk; ++i) origin.rows.emplace_back(qkv, key + head * dk + i);
      for (int64_t i = 0; i < rv; ++i) origin.rows.emplace_back(qkv, 2 * key + head * rv + i);
      for (int64_t i = 0; i < rv; ++i) origin.rows.emplace_back(gate, head * rv + i);
    }
  }

  void place_expert(const WeightSpec& spec, const std::string& prefix) {
    const int64_t rows = spec.shape[0], columns = spec.shape[1];
    if (spec.role == WeightRole::expert_down || !layout_.fused_gate_up) {
      const char* name = spec.role == WeightRole::expert_down ? "ffn_down_exps.weight"
                         : spec.role == WeightRole::expert_up ? "ffn_up_exps.weight"
                                                              : "ffn_gate_exps.weight";
      add_rows(spec, prefix + name, {c_.experts, rows, columns}, spec.expert * rows);
      return;
    }
    add_rows(spec, prefix + "ffn_gate_up_exps.weight", {c_.experts, 2 * rows, columns},
             2 * spec.expert * rows + (spec.role == WeightRole::expert_up ? rows : 0));
  }

  void place_attention(const WeightSpec& spec, const std::string& prefix) {
    const int64_t query = 2 * c_.attention_heads * c_.head_dim, kv = c_.kv_heads * c_.head_dim;
    const int64_t first = spec.role == WeightRole::q_proj   ? 0
                          : spec.role == WeightRole::k_proj ? query
                                                            : query + kv;
    add_rows(spec, prefix + "attn_qkv.weight", {query + 2 * kv, c_.hidden_size}, first);
  }

  const Config& c_;
  GgufLayout layout_;
  std::map<std::string, Origin> origins_;               // by Hugging Face name
  std::map<std::string, std::vector<int64_t>> shapes_;  // of the file
};

// --- values in a type --------------------------------------------------------------------------

template <typename Block>
std::string encoded(const std::vector<float>& values) {
  std::string out;
  for (size_t i = 0; i < values.size(); i += block_values) {
    Block block;
    encode(values.data() + i, block);
    out.append(reinterpret_cast<const char*>(&block), sizeof block);
  }
  return out;
}

// The bytes of the values in the type: rounded where there is an encoder, else anything.
inline std::string stored_as(DType dtype, const std::vector<float>& values, std::mt19937& random) {
  switch (dtype) {
    case DType::f32:
      return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
    case DType::f16:
    case DType::bf16: {
      std::string out;
      for (const float value : values) {
        const uint16_t bits = dtype == DType::f16 ? float_to_f16(value) : float_to_bf16(value);
        out.append(reinterpret_cast<const char*>(&bits), sizeof bits);
      }
      return out;
    }
    case DType::q8_0:
      return encoded<BlockQ8_0>(values);
    case DType::q4_0:
      return encoded<BlockQ4_0>(values);
    default:
      return random_blocks(dtype, values.size(), random);
  }
}

// Adds all tensors in the types that `type` gives them by name; `tensors` then hold what was
// stored.
inline void add_tensors(GgufWriter& writer, FloatTensors& tensors,
                        const std::function<DType(const std::string&)>& type) {
  std::mt19937 random(5);
  for (auto& [name, tensor] : tensors) {
    const bool is_matrix = tensor.shape.size() > 1 && name.find("conv1d") == std::string::npos;
    const DType dtype = is_matrix ? type(name) : DType::f32;
    const std::string bytes = stored_as(dtype, tensor.values, random);
    convert_to_float(dtype, bytes.data(), tensor.values.data(), tensor.values.size());
    writer.add_tensor(name, dtype, tensor.shape, bytes);
  }
}

}  // namespace qnext::testing
