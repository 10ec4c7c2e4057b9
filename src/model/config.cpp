#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "model/config_fields.h"

namespace qnext {

namespace {

// Bounds far above any model, so low that products of a few sizes fit in 63 bits.
constexpr int64_t maximum_size = ConfigFields::maximum_size;
constexpr int64_t maximum_layers = 1024;
constexpr int64_t maximum_conv_width = 64;
constexpr int64_t maximum_positions = int64_t{1} << 30;
constexpr int64_t maximum_vocabulary = int64_t{1} << 24;
constexpr int64_t maximum_experts_of_all_layers = int64_t{1} << 20;

void check_kind(const ConfigFields& fields) {
  const std::string type = fields.string("model_type", "");
  if (type != "qwen3_next") {
    const std::string found =
        type.empty() ? "there is no model_type" : fmt::format("model_type is \"{}\"", type);
    fields.bad("{}; qnext runs models of type \"qwen3_next\"", found);
  }
  const std::string activation = fields.string("hidden_act", "silu");
  if (activation != "silu")
    fields.bad("hidden_act \"{}\" is not supported; \"silu\" is", activation);
}

void check_divides(const ConfigFields& fields, std::string_view whole_name, int64_t whole,
                   std::string_view part_name, int64_t part) {
  if (whole % part != 0)
    fields.bad("{} = {} is not a multiple of {} = {}", whole_name, whole, part_name, part);
}

Mixer mixer_from_name(const ConfigFields& fields, const json::Value& name, size_t layer) {
  if (!name.is_string()) fields.bad("layer_types[{}] is {}, not a string", layer, name.kind_name());
  if (name.as_string() == "full_attention") return Mixer::full_attention;
  if (name.as_string() == "linear_attention") return Mixer::gated_delta_net;
  fields.bad(
      "layer_types[{}] \"{}\" is unknown; \"full_attention\" and \"linear_attention\" are known",
      layer, name.as_string());
}

void read_mixers(const ConfigFields& fields, std::vector<LayerKind>& layers) {
  if (const json::Value* types = fields.find("layer_types")) {
    if (!types->is_array()) fields.bad("layer_types is {}, not a list", types->kind_name());
    const json::Array& names = types->as_array();
    if (names.size() != layers.size())
      fields.bad("layer_types has {} entries, but num_hidden_layers = {}", names.size(),
                 layers.size());
    for (size_t i = 0; i < layers.size(); ++i)
      layers[i].mixer = mixer_from_name(fields, names[i], i);
    return;
  }
  const int64_t interval = fields.size("full_attention_interval", 4);
  for (size_t i = 0; i < layers.size(); ++i)
    layers[i].mixer = (static_cast<int64_t>(i) + 1) % interval == 0 ? Mixer::full_attention
                                                                    : Mixer::gated_delta_net;
}

void read_mlps(const ConfigFields& fields, bool has_experts, std::vector<LayerKind>& layers) {
  const int64_t step = fields.size("decoder_sparse_step", 1);
  for (size_t i = 0; i < layers.size(); ++i)
    layers[i].mlp =
        has_experts && (static_cast<int64_t>(i) + 1) % step == 0 ? Mlp::sparse : Mlp::dense;
  for (int64_t layer : fields.integers("mlp_only_layers")) {
    if (layer < 0 || layer >= static_cast<int64_t>(layers.size()))
      fields.bad("mlp_only_layers names layer {}, but num_hidden_layers = {}", layer,
                 layers.size());
    layers[static_cast<size_t>(layer)].mlp = Mlp::dense;
  }
}

double yarn_magnitude(double factor, double scale) {
  return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

Yarn read_yarn(const ConfigFields& fields, int64_t max_positions) {
  Yarn yarn;
  yarn.original_max_position_embeddings =
      fields.size("original_max_position_embeddings", max_positions, maximum_positions);
  yarn.factor = fields.positive_number(
      "factor", static_cast<double>(max_positions) /
                    static_cast<double>(yarn.original_max_position_embeddings));
  if (yarn.factor < 1 || yarn.factor > 1e6)
    fields.bad("factor = {} is out of range: it must be 1 to 1000000", yarn.factor);
  yarn.beta_fast = fields.positive_number("beta_fast", yarn.beta_fast);
  yarn.beta_slow = fields.positive_number("beta_slow", yarn.beta_slow);
  if (yarn.beta_fast < yarn.beta_slow)
    fields.bad("beta_fast = {} is less than beta_slow = {}", yarn.beta_fast, yarn.beta_slow);
  yarn.truncate = fields.boolean("truncate", true);
  double natural = yarn_magnitude(yarn.factor, 1);
  if (fields.find("mscale") && fields.find("mscale_all_dim"))
    natural = yarn_magnitude(yarn.factor, fields.positive_number("mscale", 1)) /
              yarn_magnitude(yarn.factor, fields.positive_number("mscale_all_dim", 1));
  yarn.attention_factor = fields.positive_number("attention_factor", natural);
  return yarn;
}

Rope read_rope(const ConfigFields& top, const Config& config) {
  const json::Value* nested = top.find("rope_parameters");
  const json::Value* scaling = nested ? nested : top.find("rope_scaling");
  static const json::Value nothing{json::Object{}};
  const ConfigFields fields(scaling ? *scaling : nothing,
                            top.what() + (nested ? ": rope_parameters" : ": rope_scaling"));

  Rope rope;
  rope.theta = fields.positive_number("rope_theta", top.positive_number("rope_theta", 10000));
  const double share =
      fields.number("partial_rotary_factor", top.number("partial_rotary_factor", 0.25));
  if (!(share > 0 && share <= 1))
    top.bad("partial_rotary_factor = {} is out of range: it must be above 0 and at most 1", share);
  rope.rotary_dims = static_cast<int64_t>(static_cast<double>(config.head_dim) * share);
  if (rope.rotary_dims < 2 || rope.rotary_dims % 2 != 0)
    top.bad(
        "partial_rotary_factor = {} of head_dim = {} gives {} rotary dimensions; they must be "
        "even and at least 2",
        share, config.head_dim, rope.rotary_dims);

  const std::string type = fields.string("rope_type", fields.string("type", "default"));
  if (type == "yarn")
    rope.yarn = read_yarn(fields, config.max_position_embeddings);
  else if (type != "default")
    fields.bad("rope_type \"{}\" is not supported; \"default\" and \"yarn\" are", type);
  return rope;
}

Quantization read_quantization(const ConfigFields& top) {
  const json::Value* value = top.find("quantization_config");
  if (!value) return Quantization::none;
  const ConfigFields fields(*value, top.what() + ": quantization_config");
  const std::string method = fields.string("quant_method", "");
  if (method != "fp8")
    fields.bad("quant_method \"{}\" is not supported; \"fp8\" is, or a checkpoint in bf16", method);
  const std::string format = fields.string("fmt", "e4m3");
  if (format != "e4m3") fields.bad("fmt \"{}\" is not supported; \"e4m3\" is", format);
  const std::vector<int64_t> block = fields.integers("weight_block_size");
  if (block != std::vector<int64_t>{128, 128})
    fields.bad("weight_block_size [{}] is not supported; [128, 128] is", fmt::join(block, ", "));
  return Quantization::fp8;
}

void read_attention(const ConfigFields& fields, Config& config) {
  config.attention_heads = fields.size("num_attention_heads", 16);
  config.kv_heads = fields.size("num_key_value_heads", 2);
  config.head_dim = fields.size("head_dim", 256);
  config.attention_bias = fields.boolean("attention_bias", false);
  check_divides(fields, "num_attention_heads", config.attention_heads, "num_key_value_heads",
                config.kv_heads);
  if (config.attention_heads * config.head_dim > maximum_size)
    fields.bad("num_attention_heads = {} times head_dim = {} is above {}", config.attention_heads,
               config.head_dim, maximum_size);
  config.rope = read_rope(fields, config);
}

void read_delta_net(const ConfigFields& fields, Config& config) {
  config.linear_key_heads = fields.size("linear_num_key_heads", 16);
  config.linear_value_heads = fields.size("linear_num_value_heads", 32);
  config.linear_key_head_dim = fields.size("linear_key_head_dim", 128);
  config.linear_value_head_dim = fields.size("linear_value_head_dim", 128);
  config.linear_conv_width = fields.size("linear_conv_kernel_dim", 4, maximum_conv_width);
  check_divides(fields, "linear_num_value_heads", config.linear_value_heads, "linear_num_key_heads",
                config.linear_key_heads);
  if (config.linear_key_width() > maximum_size)
    fields.bad("linear_num_key_heads = {} times linear_key_head_dim = {} is above {}",
               config.linear_key_heads, config.linear_key_head_dim, maximum_size);
  if (config.linear_value_width() > maximum_size)
    fields.bad("linear_num_value_heads = {} times linear_value_head_dim = {} is above {}",
               config.linear_value_heads, config.linear_value_head_dim, maximum_size);
}

void read_experts(const ConfigFields& fields, int64_t layers, Config& config) {
  config.experts = fields.integer("num_experts", 512, 0, maximum_size);
  config.dense_width = fields.size("intermediate_size", 5632);
  if (config.experts == 0) return;
  config.experts_per_token = fields.size("num_experts_per_tok", 10);
  config.expert_width = fields.size("moe_intermediate_size", 512);
  config.shared_expert_width =
      fields.integer("shared_expert_intermediate_size", 512, 0, maximum_size);
  config.norm_topk_prob = fields.boolean("norm_topk_prob", true);
  if (config.experts_per_token > config.experts)
    fields.bad("num_experts_per_tok = {} is above num_experts = {}", config.experts_per_token,
               config.experts);
  if (config.experts * layers > maximum_experts_of_all_layers)
    fields.bad("num_experts = {} times num_hidden_layers = {} is above {}", config.experts, layers,
               maximum_experts_of_all_layers);
}

void read_tokens(const ConfigFields& fields, Config& config) {
  config.eos_token_ids = fields.integers("eos_token_id");
  for (int64_t id : config.eos_token_ids)
    if (id < 0 || id >= maximum_vocabulary) fields.bad("eos_token_id {} is not a token", id);
  if (fields.find("bos_token_id"))
    config.bos_token_id = fields.integer("bos_token_id", 0, 0, maximum_vocabulary - 1);
}

}  // namespace

int64_t Config::context_length() const {
  if (!rope.yarn) return max_position_embeddings;
  const double stretched =
      rope.yarn->factor * static_cast<double>(rope.yarn->original_max_position_embeddings);
  return std::max(max_position_embeddings,
                  static_cast<int64_t>(std::min(stretched, double{maximum_positions})));
}

Config parse_config(const json::Value& value, std::string_view what) {
  const ConfigFields fields(value, std::string(what));
  check_kind(fields);
  Config config;
  config.vocabulary_size = fields.size("vocab_size", 151936, maximum_vocabulary);
  config.hidden_size = fields.size("hidden_size", 2048);
  const int64_t layers = fields.size("num_hidden_layers", 48, maximum_layers);
  config.layers.resize(static_cast<size_t>(layers));
  config.max_position_embeddings = fields.size("max_position_embeddings", 32768, maximum_positions);
  config.rms_norm_eps = fields.positive_number("rms_norm_eps", 1e-6);
  if (config.rms_norm_eps >= 1)
    fields.bad("rms_norm_eps = {} must be below 1", config.rms_norm_eps);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  config.mtp_layers = fields.integer("num_nextn_predict_layers",
                                     fields.integer("mtp_num_hidden_layers", 1, 0, 1), 0, 1);
  config.quantization = read_quantization(fields);
  read_attention(fields, config);
  read_delta_net(fields, config);
  read_experts(fields, layers, config);
  read_mixers(fields, config.layers);
  read_mlps(fields, config.experts > 0, config.layers);
  read_tokens(fields, config);
  return config;
}

Config load_config(const std::string& folder) {
  const std::string path = folder + "/config.json";
  return parse_config(json::parse_file(path), path);
}

}  // namespace qnext
