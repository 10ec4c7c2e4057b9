#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/gguf_config.h"

namespace qnext {

namespace {

class MetadataWriter {
 public:
  MetadataWriter(const Config& config, bool with_mtp, GgufPairs& metadata)
      : c_(config), mtp_(with_mtp ? config.mtp_layers : 0), metadata_(metadata) {}

  void write() {
    metadata_.add("general.architecture", "qwen3next");
    metadata_.add("general.type", "model");
    write_sizes();
    write_attention();
    write_rope();
    write_delta_net();
    if (c_.experts > 0) write_experts();
  }

 private:
  static std::string key(std::string_view name) { return fmt::format("qwen3next.{}", name); }
  void integer(std::string_view name, int64_t value) {
    if (value < 0 || value > UINT32_MAX) fail("GGUF metadata {} cannot be {}", key(name), value);
    metadata_.add(key(name), static_cast<uint32_t>(value));
  }
  void number(std::string_view name, double value) {
    metadata_.add(key(name), static_cast<float>(value));
  }

  void write_sizes() {
    const int64_t blocks = std::ssize(c_.layers) + mtp_;
    integer("block_count", blocks);
    if (mtp_ > 0) integer("nextn_predict_layers", mtp_);
    integer("context_length", c_.max_position_embeddings);
    integer("embedding_length", c_.hidden_size);
    if (c_.dense_width > 0) integer("feed_forward_length", c_.dense_width);
    number("attention.layer_norm_rms_epsilon", c_.rms_norm_eps);
    std::vector<bool> recurrent(static_cast<size_t>(blocks));
    for (size_t i = 0; i < c_.layers.size(); ++i)
      recurrent[i] = c_.layers[i].mixer == Mixer::gated_delta_net;
    metadata_.add(key("attention.recurrent_layers"), recurrent);
    // For readers that do not know the list.
    if (const int64_t interval = full_attention_interval(); interval > 0)
      integer("full_attention_interval", interval);
  }

  // n where every n-th layer, and no other, has full attention; else 0.
  int64_t full_attention_interval() const {
    const auto is_full = [](const LayerKind& kind) { return kind.mixer == Mixer::full_attention; };
    const auto first = std::ranges::find_if(c_.layers, is_full);
    if (first == c_.layers.end()) return 0;
    const int64_t interval = first - c_.layers.begin() + 1;
    for (int64_t i = 0; i < std::ssize(c_.layers); ++i)
      if (is_full(c_.layers[static_cast<size_t>(i)]) != ((i + 1) % interval == 0)) return 0;
    return interval;
  }

  void write_attention() {
    integer("attention.head_count", c_.attention_heads);
    integer("attention.head_count_kv", c_.kv_heads);
    integer("attention.key_length", c_.head_dim);
    integer("attention.value_length", c_.head_dim);
  }

  void write_rope() {
    integer("rope.dimension_count", c_.rope.rotary_dims);
    number("rope.freq_base", c_.rope.theta);
    if (!c_.rope.yarn) return;
    const Yarn& yarn = *c_.rope.yarn;
    Yarn usual;
    usual.factor = yarn.factor;
    usual.attention_factor = 0.1 * std::log(yarn.factor) + 1;
    if (std::abs(yarn.attention_factor - usual.attention_factor) > 1e-6 || !yarn.truncate)
      fail("a YaRN attention factor of its own, or no truncation, cannot be written to GGUF");
    metadata_.add(key("rope.scaling.type"), "yarn");
    number("rope.scaling.factor", yarn.factor);
    integer("rope.scaling.original_context_length", yarn.original_max_position_embeddings);
    if (yarn.beta_fast != usual.beta_fast) number("rope.scaling.yarn_beta_fast", yarn.beta_fast);
    if (yarn.beta_slow != usual.beta_slow) number("rope.scaling.yarn_beta_slow", yarn.beta_slow);
  }

  void write_delta_net() {
    integer("ssm.conv_kernel", c_.linear_conv_width);
    integer("ssm.state_size", c_.linear_key_head_dim);
    integer("ssm.group_count", c_.linear_key_heads);
    integer("ssm.time_step_rank", c_.linear_value_heads);
    integer("ssm.inner_size", c_.linear_value_width());
  }

  void write_experts() {
    integer("expert_count", c_.experts);
    integer("expert_used_count", c_.experts_per_token);
    integer("expert_feed_forward_length", c_.expert_width);
    if (c_.shared_expert_width > 0)
      integer("expert_shared_feed_forward_length", c_.shared_expert_width);
    metadata_.add(key("expert_weights_norm"), c_.norm_topk_prob);
  }

  const Config& c_;
  int64_t mtp_;
  GgufPairs& metadata_;
};

}  // namespace

void write_gguf_config(const Config& config, bool with_mtp, GgufPairs& metadata) {
  MetadataWriter(config, with_mtp, metadata).write();
}

void write_gguf_generation_config(const GenerationConfig& config, GgufPairs& metadata) {
  const auto number = [&](const char* key, std::optional<double> value) {
    if (value) metadata.add(key, static_cast<float>(*value));
  };
  // Greedy, where the model asks for it, is temperature 0.
  number("general.sampling.temp",
         config.do_sample == false ? std::optional<double>(0) : config.temperature);
  number("general.sampling.top_p", config.top_p);
  number("general.sampling.min_p", config.min_p);
  number("general.sampling.penalty_repeat", config.repetition_penalty);
  if (config.top_k)
    metadata.add("general.sampling.top_k", GgufType::i32,
                 GgufBytes().number(static_cast<int32_t>(*config.top_k)).bytes());
}

}  // namespace qnext
