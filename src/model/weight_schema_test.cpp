#include "model/weight_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "checkpoint/finite.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/temporary_folder.h"
#include "model/preset.h"

namespace qnext {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

// One layer of each mixer, sizes all different where they can be.
Config small_config(const std::string& members = "") {
  return parse_config(json::parse(
      R"({"model_type": "qwen3_next", "hidden_size": 10, "vocab_size": 20, "num_hidden_layers": 2,
          "full_attention_interval": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 6,
          "linear_key_head_dim": 4, "linear_value_head_dim": 5, "linear_conv_kernel_dim": 3,
          "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 7,
          "shared_expert_intermediate_size": 9, "intermediate_size": 11)" +
          members + "}",
      "test"));
}

std::vector<TensorDeclaration> declarations(const Config& config) {
  std::vector<TensorDeclaration> out;
  for (const WeightSpec& spec : weight_schema(config))
    out.push_back({spec.name, DType::bf16, spec.shape});
  return out;
}

TensorDeclaration& find(std::vector<TensorDeclaration>& tensors, const std::string& name) {
  const auto it =
      std::find_if(tensors.begin(), tensors.end(),
                   [&](const TensorDeclaration& tensor) { return tensor.name == name; });
  QNEXT_CHECK(it != tensors.end(), "{} is not declared", name);
  return *it;
}

template <typename Predicate>
std::vector<TensorDeclaration> without(std::vector<TensorDeclaration> tensors, Predicate&& drop) {
  std::erase_if(tensors, [&](const TensorDeclaration& tensor) { return drop(tensor.name); });
  return tensors;
}

WeightReport check(const Config& config, const std::vector<TensorDeclaration>& tensors) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder / "model.safetensors", tensors);
  for (const TensorDeclaration& tensor : tensors)
    writer.write(tensor.name, std::vector<std::byte>(tensor.bytes()));
  writer.finish();
  return check_weights(config, Checkpoint(folder.path()));
}

void expect_error(const Config& config, const std::vector<TensorDeclaration>& tensors,
                  const std::string& part) {
  EXPECT_THAT([&] { check(config, tensors); }, ThrowsMessage<Error>(HasSubstr(part)));
}

TEST(WeightSchema, ReferenceCheckpointsHaveExactlyTheseTensors) {
  for (const char* name : {"tests/data/g1-small", "tests/data/g2-heads", "tests/data/g3-yarn",
                           "models/tiny-shakespeare"}) {
    const std::string folder = std::string(QNEXT_SOURCE_DIR "/") + name;
    const Config config = load_config(folder);
    const Checkpoint checkpoint(folder);
    const WeightReport report = check_weights(config, checkpoint);
    EXPECT_TRUE(report.has_mtp) << name;
    EXPECT_TRUE(report.has_lm_head) << name;
    EXPECT_THAT(report.unknown, IsEmpty()) << name;
    EXPECT_EQ(checkpoint.tensors().size(), weight_schema(config).size()) << name;
    for (const StoredTensor& tensor : checkpoint.tensors()) check_finite(tensor);
  }
}

TEST(WeightSchema, ThirdReferenceUsesYarn) {
  const Config config = load_config(QNEXT_SOURCE_DIR "/tests/data/g3-yarn");
  ASSERT_TRUE(config.rope.yarn);
  EXPECT_EQ(config.rope.yarn->factor, 4);
  EXPECT_EQ(config.rope.yarn->original_max_position_embeddings, 64);
  EXPECT_EQ(config.context_length(), 256);
}

// 79.67 billion parameters without the MTP head: the published "80B".
// layer.
TEST(WeightSchema, CountsTheParametersOfTheRelease) {
  int64_t model = 0;
  for (const WeightSpec& spec : weight_schema(parse_config(preset_config("qwen3-next-80b-a3b")))) {
    int64_t count = 1;
    for (int64_t size : spec.shape) count *= size;
    if (!spec.mtp) model += count;
  }
  EXPECT_EQ(model, 79'674'391'296);
}

TEST(WeightSchema, LayersExpertsAndMtpAreMarked) {
  const Config config = small_config(R"(, "mlp_only_layers": [0], "attention_bias": true)");
  for (const WeightSpec& spec : weight_schema(config)) {
    EXPECT_EQ(spec.mtp, spec.name.starts_with("mtp.")) << spec.name;
    EXPECT_EQ(spec.optional, spec.mtp) << spec.name;
    EXPECT_EQ(spec.layer >= 0, spec.name.find("layers.") != std::string::npos) << spec.name;
    EXPECT_EQ(spec.expert >= 0, spec.name.find("experts.") != std::string::npos) << spec.name;
    if (spec.role == WeightRole::dense_down) {
      EXPECT_EQ(spec.name, "model.layers.0.mlp.down_proj.weight");
      EXPECT_THAT(spec.shape, ElementsAre(10, 11));
    }
    if (spec.role == WeightRole::q_bias && !spec.mtp) {
      EXPECT_EQ(spec.name, "model.layers.1.self_attn.q_proj.bias");
      EXPECT_THAT(spec.shape, ElementsAre(64));
    }
  }
}

TEST(CheckWeights, AcceptsWhatIsComplete) {
  const Config config = small_config();
  const auto all = declarations(config);
  const WeightReport report = check(config, all);
  EXPECT_TRUE(report.has_mtp);
  size_t bytes = 0;
  for (const TensorDeclaration& tensor : all) bytes += tensor.bytes();
  EXPECT_EQ(report.bytes, bytes);
  EXPECT_FALSE(
      check(config, without(all, [](auto& name) { return name.starts_with("mtp."); })).has_mtp);
}

TEST(CheckWeights, ListsTensorsThatNobodyKnows) {
  const Config config = small_config(R"(, "num_nextn_predict_layers": 0)");
  auto all = declarations(config);
  all.push_back({"visual.weight", DType::i32, {3}});
  all.push_back({"mtp.norm.weight", DType::bf16, {10}});
  EXPECT_THAT(check(config, all).unknown, ElementsAre("mtp.norm.weight", "visual.weight"));
}

TEST(CheckWeights, TiedModelsNeedNoHead) {
  const auto drop_head = [](const std::string& name) { return name == "lm_head.weight"; };
  const Config tied = small_config(R"(, "tie_word_embeddings": true)");
  EXPECT_FALSE(check(tied, without(declarations(tied), drop_head)).has_lm_head);
  EXPECT_TRUE(check(tied, declarations(tied)).has_lm_head);
  const Config untied = small_config();
  expect_error(untied, without(declarations(untied), drop_head),
               "tensor lm_head.weight of shape [20, 10] is missing");
}

// Every tensor in turn: absent, and of another shape.
TEST(CheckWeights, NamesWhateverIsMissingOrMisshapen) {
  const Config config = small_config(R"(, "mlp_only_layers": [0], "attention_bias": true)");
  const auto all = declarations(config);
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string name = all[i].name;
    expect_error(config, without(all, [&](const std::string& other) { return other == name; }),
                 fmt::format("tensor {} of shape {} is missing{}", name, shape_text(all[i].shape),
                             name.starts_with("mtp.") ? "; the MTP head (mtp.*) must be" : ""));
    auto changed = all;
    changed[i].shape.back() += 1;
    expect_error(config, changed,
                 fmt::format("tensor {} has shape {}, expected {}: the config says ", name,
                             shape_text(changed[i].shape), shape_text(all[i].shape)));
  }
}

TEST(CheckWeights, ShapeErrorsNameTheFields) {
  const Config config = small_config();
  const auto expect_reason = [&](const std::string& name, const std::string& reason) {
    auto all = declarations(config);
    find(all, name).shape.push_back(1);
    expect_error(config, all, "the config says " + reason);
  };
  expect_reason("model.embed_tokens.weight", "vocab_size = 20, hidden_size = 10");
  expect_reason("model.layers.0.mlp.gate.weight", "num_experts = 3, hidden_size = 10");
  expect_reason("model.layers.1.self_attn.k_proj.weight",
                "num_key_value_heads = 2, head_dim = 8, hidden_size = 10");
  expect_reason("model.layers.0.linear_attn.conv1d.weight",
                "linear_num_key_heads = 2, linear_key_head_dim = 4, linear_num_value_heads = 6, "
                "linear_value_head_dim = 5, linear_conv_kernel_dim = 3");
}

TEST(CheckWeights, WeightsMustBeFloating) {
  const Config config = small_config();
  auto all = declarations(config);
  find(all, "model.norm.weight").dtype = DType::i32;
  expect_error(config, all, "tensor model.norm.weight is I32; weights must be F32, F16, BF16, F8");
}

TEST(CheckWeights, Fp8MatricesNeedScales) {
  json::Value json = preset_config("qwen3-next-80b-a3b");
  for (const auto& [name, value] : {std::pair{"layers", 1},
                                    {"experts", 10},
                                    {"hidden-size", 130},
                                    {"vocabulary-size", 8},
                                    {"expert-width", 260}})
    set_size(json, name, value);
  const Config config = parse_config(json);
  const std::string name = "model.layers.0.mlp.experts.3.up_proj.weight";  // [260, 130]
  auto all = declarations(config);
  find(all, name).dtype = DType::f8_e4m3;
  expect_error(config, all, "is F8_E4M3, but its scales " + name + "_scale_inv are missing");
  all.push_back({name + "_scale_inv", DType::f32, {3, 2}});
  EXPECT_THAT(check(config, all).unknown, IsEmpty());
  all.back().dtype = DType::bf16;
  EXPECT_THAT(check(config, all).unknown, IsEmpty());
  all.back().dtype = DType::f16;
  expect_error(config, all, "_scale_inv is F16; scales must be F32 or BF16");
  all.back() = {name + "_scale_inv", DType::f32, {2, 2}};
  expect_error(config, all,
               "_scale_inv has shape [2, 2], but " + name + " of shape [260, 130] needs [3, 2]");
  all.pop_back();
  find(all, name).dtype = DType::bf16;
  find(all, "model.norm.weight").dtype = DType::f8_e4m3;
  expect_error(config, all, "model.norm.weight: F8_E4M3 is supported for matrices only");
}

}  // namespace
}  // namespace qnext
