#include "model/gguf_config.h"

#include <algorithm>

#include "base/error.h"

namespace qnext {

namespace {

constexpr std::string_view architecture = "qwen3next";
constexpr int64_t most_blocks = 4096;

// Writes the config.json that the metadata amount to, so that one parser judges both.
class ConfigWriter {
 public:
  explicit ConfigWriter(const GgufFiles& files) : files_(files), metadata_(files.metadata()) {
    const std::string_view found = metadata_.string("general.architecture");
    if (found != architecture)
      fail("{}: metadata general.architecture is \"{}\"; qnext runs \"{}\"", metadata_.what(),
           printable(found), architecture);
  }

  json::Value write() {
    config_.set("model_type", "qwen3_next");
    write_sizes();
    write_attention();
    write_rope();
    write_delta_net();
    write_experts();
    write_tokens();
    return std::move(config_);
  }

 private:
  static std::string key(std::string_view name) { return fmt::format("{}.{}", architecture, name); }
  template <typename... Arguments>
  [[noreturn]] void bad(std::string_view name, fmt::format_string<Arguments...> format,
                        Arguments&&... arguments) const {
    fail("{}: metadata {} {}", metadata_.what(), key(name),
         fmt::format(format, std::forward<Arguments>(arguments)...));
  }
  int64_t integer(std::string_view name) const { return metadata_.integer(key(name)); }
  void copy(std::string_view name, std::string field) {
    config_.set(std::move(field), integer(name));
  }

  // A tensor whose shape says what the metadata leave out.
  const StoredTensor& tensor(std::string_view name, size_t rank) const {
    const StoredTensor* found = files_.find(name);
    if (!found) fail("{}: tensor {} is missing", metadata_.what(), name);
    if (found->shape.size() != rank)
      fail("{}: tensor {} has shape {}, expected {} dimensions", metadata_.what(), name,
           shape_text(found->shape), rank);
    return *found;
  }

  void write_sizes() {
    const int64_t blocks = integer("block_count");
    const int64_t mtp = metadata_.find_integer(key("nextn_predict_layers")).value_or(0);
    if (mtp < 0 || mtp > 1) bad("nextn_predict_layers", "= {} is out of range: 0 or 1", mtp);
    // Before anything goes through all layers; parse_config() knows the exact bound.
    if (blocks <= mtp || blocks > most_blocks)
      bad("block_count", "= {} is out of range: at most {}", blocks, most_blocks);
    layers_ = blocks - mtp;
    config_.set("num_hidden_layers", layers_);
    config_.set("num_nextn_predict_layers", mtp);
    config_.set("vocab_size", tensor("token_embd.weight", 2).shape[0]);
    config_.set("tie_word_embeddings", files_.find("output.weight") == nullptr);
    copy("embedding_length", "hidden_size");
    copy("context_length", "max_position_embeddings");
    config_.set("rms_norm_eps", metadata_.number(key("attention.layer_norm_rms_epsilon")));
    write_mixers();
  }

  void write_mixers() {
    const auto recurrent = metadata_.find_integers(key("attention.recurrent_layers"));
    if (!recurrent) {
      if (const auto interval = metadata_.find_integer(key("full_attention_interval")))
        config_.set("full_attention_interval", *interval);
      return;
    }
    if (static_cast<int64_t>(recurrent->size()) < layers_)
      bad("attention.recurrent_layers", "has {} entries for {} layers", recurrent->size(), layers_);
    json::Array types;
    for (size_t i = 0; i < static_cast<size_t>(layers_); ++i)
      types.emplace_back((*recurrent)[i] ? "linear_attention" : "full_attention");
    config_.set("layer_types", std::move(types));
  }

  // One number for all layers, or one for each with 0 where a layer has no attention.
  int64_t kv_heads() const {
    const std::string name = key("attention.head_count_kv");
    const GgufValue* value = metadata_.find(name);
    if (!value || !std::holds_alternative<GgufArray>(*value)) return metadata_.integer(name);
    std::vector<int64_t> counts = *metadata_.find_integers(name);
    std::erase(counts, 0);
    if (counts.empty() || std::ranges::count(counts, counts[0]) != std::ssize(counts))
      bad("attention.head_count_kv", "differs between layers, which is not supported");
    return counts[0];
  }

  void write_attention() {
    copy("attention.head_count", "num_attention_heads");
    config_.set("num_key_value_heads", kv_heads());
    copy("attention.key_length", "head_dim");
    head_dim_ = integer("attention.key_length");
    const auto value_length = metadata_.find_integer(key("attention.value_length"));
    if (value_length.value_or(head_dim_) != head_dim_)
      bad("attention.value_length", "= {} is not the key_length {}", *value_length, head_dim_);
    const auto has_bias = [&](const StoredTensor& stored) {
      return stored.name.ends_with(".attn_q.bias");
    };
    config_.set("attention_bias", std::ranges::any_of(files_.tensors(), has_bias));
  }

  void write_rope() {
    const int64_t dimensions = integer("rope.dimension_count");
    if (dimensions < 1 || dimensions > head_dim_)
      bad("rope.dimension_count", "= {} is out of range: 1 to the key_length {}", dimensions,
          head_dim_);
    // A share that gives this number again, rounded down.
    const double half = dimensions == head_dim_ ? 0.0 : 0.5;
    config_.set("partial_rotary_factor",
                (static_cast<double>(dimensions) + half) / static_cast<double>(head_dim_));
    config_.set("rope_theta", metadata_.number(key("rope.freq_base")));
    const std::string_view type = metadata_.find_string(key("rope.scaling.type")).value_or("none");
    if (type == "none") return;
    if (type != "yarn")
      bad("rope.scaling.type", "\"{}\" is not supported; \"yarn\" is", printable(type));
    json::Object scaling{{"rope_type", "yarn"}};
    const auto copy_number = [&](std::string_view name, const char* field) {
      if (const auto number = metadata_.find_number(key(name))) scaling.set(field, *number);
    };
    copy_number("rope.scaling.factor", "factor");
    copy_number("rope.scaling.yarn_beta_fast", "beta_fast");
    copy_number("rope.scaling.yarn_beta_slow", "beta_slow");
    if (const auto original = metadata_.find_integer(key("rope.scaling.original_context_length")))
      scaling.set("original_max_position_embeddings", *original);
    config_.set("rope_scaling", std::move(scaling));
  }

  void write_delta_net() {
    const int64_t key_heads = integer("ssm.group_count");
    const int64_t value_heads = integer("ssm.time_step_rank");
    const int64_t value_width = integer("ssm.inner_size");
    if (value_heads < 1 || value_width % value_heads != 0)
      bad("ssm.inner_size", "= {} is not a multiple of ssm.time_step_rank = {}", value_width,
          value_heads);
    if (metadata_.find_boolean(key("ssm.v_head_reordered")).value_or(false))
      bad("ssm.v_head_reordered", "is not supported; value heads must stand by their key heads");
    config_.set("linear_num_key_heads", key_heads);
    config_.set("linear_num_value_heads", value_heads);
    copy("ssm.state_size", "linear_key_head_dim");
    config_.set("linear_value_head_dim", value_width / value_heads);
    copy("ssm.conv_kernel", "linear_conv_kernel_dim");
  }

  void write_experts() {
    const int64_t experts = metadata_.find_integer(key("expert_count")).value_or(0);
    config_.set("num_experts", experts);
    if (const auto width = metadata_.find_integer(key("feed_forward_length")); width && *width > 0)
      config_.set("intermediate_size", *width);
    if (experts == 0) return;
    copy("expert_used_count", "num_experts_per_tok");
    if (const auto norm = metadata_.find_boolean(key("expert_weights_norm")))
      config_.set("norm_topk_prob", *norm);
    const double scale = metadata_.find_number(key("expert_weights_scale")).value_or(0);
    if (scale != 0 && scale != 1) bad("expert_weights_scale", "= {} is not supported", scale);
    json::Array dense;
    std::string sparse;  // the first layer with experts
    for (int64_t i = 0; i < layers_; ++i) {
      const std::string prefix = fmt::format("blk.{}.", i);
      const bool routed = files_.find(prefix + "ffn_gate_inp.weight") != nullptr;
      if (!routed && files_.find(prefix + "ffn_gate.weight"))
        dense.emplace_back(i);
      else if (sparse.empty())
        sparse = prefix;
    }
    if (sparse.empty()) bad("expert_count", "= {}, but every layer is dense", experts);
    config_.set("mlp_only_layers", std::move(dense));
    write_expert_widths(sparse);
  }

  void write_expert_widths(const std::string& sparse) {
    const auto width = metadata_.find_integer(key("expert_feed_forward_length"));
    config_.set("moe_intermediate_size",
                width ? *width : tensor(sparse + "ffn_down_exps.weight", 3).shape[2]);
    const auto shared = metadata_.find_integer(key("expert_shared_feed_forward_length"));
    const std::string down = sparse + "ffn_down_shexp.weight";
    config_.set("shared_expert_intermediate_size", shared              ? *shared
                                                   : files_.find(down) ? tensor(down, 2).shape[1]
                                                                       : 0);
  }

  void write_tokens() {
    if (const auto eos = metadata_.find_integer("tokenizer.ggml.eos_token_id"))
      config_.set("eos_token_id", *eos);
    if (const auto bos = metadata_.find_integer("tokenizer.ggml.bos_token_id"))
      config_.set("bos_token_id", *bos);
  }

  const GgufFiles& files_;
  const GgufMetadata& metadata_;
  json::Object config_;
  int64_t layers_ = 0;
  int64_t head_dim_ = 0;
};

// A name for what a file's metadata were turned into.
std::string as_file(const GgufFiles& files, std::string_view file) {
  return fmt::format("{}: its metadata as {}", files.path(), file);
}

}  // namespace

Config read_gguf_config(const GgufFiles& files) {
  return parse_config(ConfigWriter(files).write(), as_file(files, "config.json"));
}

GenerationConfig read_gguf_generation_config(const GgufFiles& files) {
  const GgufMetadata& metadata = files.metadata();
  json::Object config;
  for (const auto& [key, field] : {std::pair{"general.sampling.temp", "temperature"},
                                   {"general.sampling.top_p", "top_p"},
                                   {"general.sampling.min_p", "min_p"},
                                   {"general.sampling.penalty_repeat", "repetition_penalty"}})
    if (const auto number = metadata.find_number(key)) config.set(field, *number);
  if (const auto top_k = metadata.find_integer("general.sampling.top_k"))
    config.set("top_k", *top_k);

  json::Array ends;
  const auto add_end = [&](int64_t id) {
    if (std::ranges::find(ends, json::Value(id)) == ends.end()) ends.emplace_back(id);
  };
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (const auto id = metadata.find_integer(key)) add_end(*id);
  constexpr int64_t control = 3;  // the published kind of such a token
  const auto tokens = metadata.find_strings("tokenizer.ggml.tokens");
  const auto kinds = metadata.find_integers("tokenizer.ggml.token_type");
  if (tokens && kinds && tokens->size() == kinds->size())
    for (size_t id = 0; id < tokens->size(); ++id)
      if ((*kinds)[id] == control &&
          ((*tokens)[id] == "<|im_end|>" || (*tokens)[id] == "<|endoftext|>"))
        add_end(static_cast<int64_t>(id));
  if (!ends.empty()) config.set("eos_token_id", std::move(ends));
  return parse_generation_config(json::Value(std::move(config)),
                                 as_file(files, "generation_config.json"));
}

}  // namespace qnext
