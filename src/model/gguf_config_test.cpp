#include "model/gguf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/temporary_folder.h"
#include "checkpoint/testing/gguf_writer.h"

namespace qnext {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::GgufWriter;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

using Add = std::function<void(GgufWriter&, const std::string& key)>;

Add integer(uint32_t value) {
  return [=](GgufWriter& writer, const std::string& key) { writer.add(key, value); };
}
Add number(float value) {
  return [=](GgufWriter& writer, const std::string& key) { writer.add(key, value); };
}
Add boolean(bool value) {
  return [=](GgufWriter& writer, const std::string& key) { writer.add(key, value); };
}
Add text(const std::string& value) {
  return [=](GgufWriter& writer, const std::string& key) { writer.add(key, value); };
}
Add integers(const std::vector<int32_t>& value) {
  return [=](GgufWriter& writer, const std::string& key) { writer.add(key, value); };
}

// The head of a file of 8 layers of the released sizes, but for a vocabulary of 10; weights that
// the metadata do not need are left out.
struct File {
  File() {
    add("general.architecture", text("qwen3next"));
    for (const auto& [key, value] : std::map<std::string, uint32_t>{
             {"block_count", 8},
             {"context_length", 262144},
             {"embedding_length", 2048},
             {"feed_forward_length", 5120},
             {"expert_count", 512},
             {"expert_used_count", 10},
             {"expert_feed_forward_length", 512},
             {"expert_shared_feed_forward_length", 512},
             {"attention.head_count", 16},
             {"attention.head_count_kv", 2},
             {"attention.key_length", 256},
             {"attention.value_length", 256},
             {"rope.dimension_count", 64},
             {"ssm.conv_kernel", 4},
             {"ssm.state_size", 128},
             {"ssm.group_count", 16},
             {"ssm.time_step_rank", 32},
             {"ssm.inner_size", 4096},
         })
      add("qwen3next." + key, integer(value));
    add("qwen3next.rope.freq_base", number(1e7f));
    add("qwen3next.attention.layer_norm_rms_epsilon", number(1e-6f));
    tensors = {"token_embd.weight", "output.weight", "blk.0.ffn_gate_inp.weight"};
  }
  void add(const std::string& key, Add value) { entries[key] = std::move(value); }

  GgufFiles open() const {
    GgufWriter writer;
    for (const auto& [key, write] : entries) write(writer, key);
    for (const std::string& name : tensors)
      writer.add_tensor(name, DType::f32, {10, 1}, std::string(40, '\0'));
    const TemporaryFolder folder;
    write_file(folder / "x.gguf", writer.bytes());
    return GgufFiles(folder / "x.gguf");
  }
  Config config() const { return read_gguf_config(open()); }
  GenerationConfig generation() const { return read_gguf_generation_config(open()); }

  std::map<std::string, Add> entries;
  std::vector<std::string> tensors;
};

TEST(GgufConfig, ReadsTheReleasedSizes) {
  const Config c = File().config();
  EXPECT_EQ(c.vocabulary_size, 10);
  EXPECT_EQ(c.hidden_size, 2048);
  ASSERT_EQ(c.layers.size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(c.layers[i].mixer == Mixer::full_attention, i % 4 == 3) << i;
    EXPECT_EQ(c.layers[i].mlp, Mlp::sparse) << i;
  }
  EXPECT_EQ(c.attention_heads, 16);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dim, 256);
  EXPECT_EQ(c.rope.rotary_dims, 64);
  EXPECT_EQ(c.rope.theta, 1e7);
  EXPECT_FALSE(c.rope.yarn);
  EXPECT_EQ(c.linear_key_heads, 16);
  EXPECT_EQ(c.linear_value_heads, 32);
  EXPECT_EQ(c.linear_key_head_dim, 128);
  EXPECT_EQ(c.linear_value_head_dim, 128);
  EXPECT_EQ(c.linear_conv_width, 4);
  EXPECT_EQ(c.experts, 512);
  EXPECT_EQ(c.experts_per_token, 10);
  EXPECT_EQ(c.expert_width, 512);
  EXPECT_EQ(c.shared_expert_width, 512);
  EXPECT_TRUE(c.norm_topk_prob);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_FALSE(c.attention_bias);
  EXPECT_EQ(c.max_position_embeddings, 262144);
  EXPECT_EQ(c.mtp_layers, 0);
}

TEST(GgufConfig, ReadsWhatIsSeldom) {
  File file;
  file.add("qwen3next.nextn_predict_layers", integer(1));
  file.add("qwen3next.full_attention_interval", integer(7));
  file.add("qwen3next.rope.scaling.type", text("yarn"));
  file.add("qwen3next.rope.scaling.factor", number(4));
  file.add("qwen3next.rope.scaling.original_context_length", integer(65536));
  file.add("qwen3next.attention.head_count_kv", integers({0, 0, 2, 0, 0, 0, 2, 0}));
  file.add("qwen3next.expert_weights_norm", boolean(false));
  file.add("tokenizer.ggml.eos_token_id", integer(7));
  file.tensors = {"token_embd.weight", "blk.0.ffn_gate_inp.weight", "blk.2.ffn_gate.weight",
                  "blk.3.attn_q.bias"};
  const Config c = file.config();
  EXPECT_EQ(c.mtp_layers, 1);
  ASSERT_EQ(c.layers.size(), 7u);
  EXPECT_EQ(c.layers[6].mixer, Mixer::full_attention);
  EXPECT_EQ(c.layers[3].mixer, Mixer::gated_delta_net);
  EXPECT_EQ(c.layers[2].mlp, Mlp::dense);
  EXPECT_EQ(c.layers[1].mlp, Mlp::sparse);
  EXPECT_EQ(c.rope.yarn->factor, 4);
  EXPECT_EQ(c.rope.yarn->original_max_position_embeddings, 65536);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_FALSE(c.norm_topk_prob);
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_TRUE(c.attention_bias);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(7));
}

TEST(GgufConfig, EveryRotaryDimensionComesThrough) {
  for (const uint32_t head_dim : {64u, 96u, 250u, 256u})
    for (uint32_t dimensions = 2; dimensions <= head_dim; dimensions += 2) {
      File file;
      file.add("qwen3next.attention.key_length", integer(head_dim));
      file.add("qwen3next.attention.value_length", integer(head_dim));
      file.add("qwen3next.rope.dimension_count", integer(dimensions));
      ASSERT_EQ(file.config().rope.rotary_dims, dimensions) << "of " << head_dim;
    }
}

void expect_error(const File& file, const std::string& part) {
  EXPECT_THAT([&] { file.config(); },
              ThrowsMessage<Error>(AllOf(HasSubstr("x.gguf: "), HasSubstr(part))));
}

TEST(GgufConfig, EveryFaultNamesItsKey) {
  const File good;
  // Absent ones that have a default, or that a tensor would tell.
  const std::vector<std::string> optional = {"qwen3next.attention.value_length",
                                             "qwen3next.feed_forward_length"};
  for (const auto& [key, value] : good.entries) {
    File file = good;
    file.entries.erase(key);
    if (key.find("expert_") != std::string::npos && key.find("used") == std::string::npos) {
      if (key.find("forward") != std::string::npos) continue;
      EXPECT_EQ(file.config().experts, 0);
    } else if (std::ranges::find(optional, key) != optional.end()) {
      EXPECT_NO_THROW(file.config()) << key;
    } else {
      expect_error(file, "metadata " + key + " is missing");
    }
    file.add(key, integers({1}));
    if (key != "qwen3next.attention.head_count_kv") expect_error(file, "metadata " + key + " must");
  }
}

TEST(GgufConfig, WhatIsOutOfRangeIsNamed) {
  const auto with = [](const std::string& key, Add value) {
    File file;
    file.add(key, std::move(value));
    return file;
  };
  expect_error(with("general.architecture", text("qwen35")), "is \"qwen35\"; qnext runs");
  expect_error(with("qwen3next.block_count", integer(0)), "qwen3next.block_count = 0");
  expect_error(with("qwen3next.block_count", integer(1u << 31)), "block_count = 2147483648");
  expect_error(with("qwen3next.block_count", integer(2000)), "num_hidden_layers = 2000");
  expect_error(with("qwen3next.nextn_predict_layers", integer(2)), "nextn_predict_layers = 2");
  expect_error(with("qwen3next.attention.recurrent_layers", integers({1, 0})),
               "recurrent_layers has 2 entries for 8 layers");
  expect_error(with("qwen3next.attention.head_count_kv", integers({2, 4})),
               "head_count_kv differs");
  expect_error(with("qwen3next.attention.head_count_kv", integers({})), "head_count_kv differs");
  expect_error(with("qwen3next.attention.head_count_kv", integer(3)), "num_key_value_heads = 3");
  expect_error(with("qwen3next.attention.value_length", integer(128)), "attention.value_length");
  expect_error(with("qwen3next.rope.dimension_count", integer(0)), "rope.dimension_count = 0");
  expect_error(with("qwen3next.rope.dimension_count", integer(300)), "rope.dimension_count = 300");
  expect_error(with("qwen3next.rope.dimension_count", integer(63)), "rotary dimensions");
  expect_error(with("qwen3next.rope.scaling.type", text("linear")), "rope.scaling.type \"linear\"");
  expect_error(with("qwen3next.rope.freq_base", number(NAN)), "rope_theta");
  expect_error(with("qwen3next.ssm.time_step_rank", integer(0)), "ssm.inner_size");
  expect_error(with("qwen3next.ssm.time_step_rank", integer(31)), "ssm.inner_size");
  expect_error(with("qwen3next.ssm.v_head_reordered", boolean(true)), "ssm.v_head_reordered");
  expect_error(with("qwen3next.expert_weights_scale", number(2.5)), "expert_weights_scale = 2.5");
  File no_embedding;
  no_embedding.tensors = {"output.weight"};
  expect_error(no_embedding, "tensor token_embd.weight is missing");
  File no_experts;
  for (int i = 0; i < 8; ++i)
    no_experts.tensors.push_back("blk." + std::to_string(i) + ".ffn_gate.weight");
  std::erase(no_experts.tensors, "blk.0.ffn_gate_inp.weight");
  expect_error(no_experts, "expert_count = 512, but every layer is dense");
  File no_width;
  no_width.entries.erase("qwen3next.expert_feed_forward_length");
  expect_error(no_width, "tensor blk.0.ffn_down_exps.weight is missing");
}

TEST(GgufGenerationConfig, ReadsSamplingAndEnds) {
  File file;
  EXPECT_EQ(file.generation(), GenerationConfig{});
  file.add("general.sampling.temp", number(0.75f));
  file.add("general.sampling.top_k", integer(20));
  file.add("general.sampling.top_p", number(0.5f));
  file.add("general.sampling.min_p", number(0.25f));
  file.add("general.sampling.penalty_repeat", number(1.5f));
  file.add("tokenizer.ggml.eos_token_id", integer(3));
  file.add("tokenizer.ggml.eot_token_id", integer(3));
  file.add("tokenizer.ggml.tokens", [](GgufWriter& writer, const std::string& key) {
    writer.add(key, std::vector<std::string>{"a", "<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                             "<|im_end|>"});
  });
  file.add("tokenizer.ggml.token_type", integers({1, 3, 3, 3, 1}));
  const GenerationConfig found = file.generation();
  EXPECT_EQ(found.temperature, 0.75);
  EXPECT_EQ(found.top_k, 20);
  EXPECT_EQ(found.top_p, 0.5);
  EXPECT_EQ(found.min_p, 0.25);
  EXPECT_EQ(found.repetition_penalty, 1.5);
  EXPECT_THAT(found.eos_token_ids, ElementsAre(3, 1));

  file.add("general.sampling.top_p", number(2));
  EXPECT_THAT([&] { file.generation(); },
              ThrowsMessage<Error>(AllOf(HasSubstr("x.gguf: "), HasSubstr("top_p = 2"))));
}

}  // namespace
}  // namespace qnext
