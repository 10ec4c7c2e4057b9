#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "checkpoint/temporary_folder.h"
#include "model/generation_config.h"
#include "model/preset.h"

namespace qnext {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;

// The 80B config with the given members set.
json::Value with(const std::string& members) {
  json::Value config = preset_config("qwen3-next-80b-a3b");
  const json::Value changes = json::parse("{" + members + "}", "test");
  for (const auto& [key, value] : changes.as_object()) config.as_object().set(key, value);
  return config;
}

void expect_value_error(const json::Value& config, const std::string& part) {
  EXPECT_THAT([&] { parse_config(config); },
              ThrowsMessage<Error>(AllOf(StartsWith("config.json: "), HasSubstr(part))))
      << part;
}

void expect_error(const std::string& members, const std::string& part) {
  expect_value_error(with(members), part);
}

TEST(Config, ReadsTheReleasedSizes) {
  const Config config = parse_config(preset_config("qwen3-next-80b-a3b"));
  EXPECT_EQ(config.vocabulary_size, 151936);
  EXPECT_EQ(config.hidden_size, 2048);
  ASSERT_EQ(config.layers.size(), 48u);
  for (size_t i = 0; i < 48; ++i) {
    EXPECT_EQ(config.layers[i].mixer, i % 4 == 3 ? Mixer::full_attention : Mixer::gated_delta_net);
    EXPECT_EQ(config.layers[i].mlp, Mlp::sparse);
  }
  EXPECT_EQ(config.attention_heads, 16);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_EQ(config.rope, (Rope{1e7, 64, std::nullopt}));
  EXPECT_EQ(config.linear_conv_channels(), 8192);
  EXPECT_EQ(config.value_heads_per_key_head(), 2);
  EXPECT_EQ(config.linear_conv_width, 4);
  EXPECT_EQ(config.experts, 512);
  EXPECT_EQ(config.experts_per_token, 10);
  EXPECT_EQ(config.expert_width, 512);
  EXPECT_EQ(config.shared_expert_width, 512);
  EXPECT_EQ(config.dense_width, 5120);
  EXPECT_TRUE(config.norm_topk_prob);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.context_length(), 262144);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(151645));
  EXPECT_EQ(config.bos_token_id, 151643);
  EXPECT_EQ(config.quantization, Quantization::none);
}

// What transformers' Qwen3NextConfig takes for absent fields.
TEST(Config, AbsentAndNullFieldsTakeTheDefaults) {
  const Config config = parse_config(json::parse(R"({"model_type": "qwen3_next"})", "test"));
  EXPECT_EQ(config.dense_width, 5632);
  EXPECT_EQ(config.max_position_embeddings, 32768);
  EXPECT_EQ(config.rope, (Rope{10000, 64, std::nullopt}));
  EXPECT_TRUE(config.eos_token_ids.empty());
  EXPECT_FALSE(config.bos_token_id);
  EXPECT_EQ(config, parse_config(json::parse(
                        R"({"model_type": "qwen3_next", "head_dim": null, "rope_scaling": null,
                            "layer_types": null, "mlp_only_layers": null, "eos_token_id": null,
                            "quantization_config": null, "rope_parameters": null})",
                        "test")));
}

TEST(Config, NestedRopeParametersMeanTheSame) {
  const json::Value top = with(
      R"("rope_theta": 5e6, "partial_rotary_factor": 0.5,
         "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 16,
                          "original_max_position_embeddings": 1000})");
  const json::Value nested = with(
      R"("rope_theta": null, "partial_rotary_factor": null,
         "rope_parameters": {"rope_type": "yarn", "rope_theta": 5e6, "partial_rotary_factor": 0.5,
                             "factor": 2.0, "beta_fast": 16,
                             "original_max_position_embeddings": 1000})");
  const Config config = parse_config(top);
  EXPECT_EQ(config, parse_config(nested));
  EXPECT_EQ(config.rope.theta, 5e6);
  EXPECT_EQ(config.rope.rotary_dims, 128);
  EXPECT_EQ(config.rope.yarn->beta_fast, 16);
  EXPECT_EQ(config.rope.yarn->beta_slow, 1);
  EXPECT_TRUE(config.rope.yarn->truncate);
  EXPECT_DOUBLE_EQ(config.rope.yarn->attention_factor, 0.1 * std::log(2.0) + 1);
  // The older key of the type.
  EXPECT_FALSE(parse_config(with(R"("rope_scaling": {"type": "default"})")).rope.yarn);
}

TEST(Config, YarnDefaults) {
  // Without a factor: as far as max_position_embeddings says.
  const auto yarn = [](const std::string& members) {
    return *parse_config(with(R"("max_position_embeddings": 4000, "rope_scaling":
        {"rope_type": "yarn", "original_max_position_embeddings": 1000)" +
                              members + "}"))
                .rope.yarn;
  };
  EXPECT_EQ(yarn("").factor, 4.0);
  EXPECT_EQ(yarn(R"(, "factor": 8)").factor, 8.0);
  EXPECT_EQ(yarn(R"(, "attention_factor": 1.5)").attention_factor, 1.5);
  EXPECT_EQ(yarn(R"(, "factor": 1)").attention_factor, 1.0);
  EXPECT_DOUBLE_EQ(yarn(R"(, "mscale": 2, "mscale_all_dim": 1)").attention_factor,
                   (0.2 * std::log(4.0) + 1) / (0.1 * std::log(4.0) + 1));
  EXPECT_FALSE(yarn(R"(, "truncate": false)").truncate);
}

TEST(Config, ContextIsWhatYarnStretchesTo) {
  const Config config = parse_config(with(R"("rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                               "original_max_position_embeddings": 262144})"));
  EXPECT_EQ(config.context_length(), 4 * 262144);
}

TEST(Config, LayerTypesWinOverTheInterval) {
  const Config config = parse_config(with(R"("num_hidden_layers": 3, "full_attention_interval": 1,
              "layer_types": ["full_attention", "linear_attention", "full_attention"])"));
  EXPECT_EQ(config.layers[0].mixer, Mixer::full_attention);
  EXPECT_EQ(config.layers[1].mixer, Mixer::gated_delta_net);
  EXPECT_EQ(config.layers[2].mixer, Mixer::full_attention);
}

TEST(Config, DenseLayers) {
  const auto mlps = [](const std::string& members) {
    std::string out;
    for (const LayerKind& layer : parse_config(with("\"num_hidden_layers\": 4, " + members)).layers)
      out += layer.mlp == Mlp::sparse ? 's' : 'd';
    return out;
  };
  EXPECT_EQ(mlps(R"("decoder_sparse_step": 2)"), "dsds");
  EXPECT_EQ(mlps(R"("mlp_only_layers": [0, 2])"), "dsds");
  EXPECT_EQ(mlps(R"("decoder_sparse_step": 2, "mlp_only_layers": [1])"), "ddds");
  EXPECT_EQ(mlps(R"("num_experts": 0)"), "dddd");
}

TEST(Config, ReadsFlagsAndTokenLists) {
  const Config config = parse_config(
      with(R"("attention_bias": true, "tie_word_embeddings": true, "norm_topk_prob": false,
              "shared_expert_intermediate_size": 0, "eos_token_id": [1, 2], "bos_token_id": null,
              "num_nextn_predict_layers": 0)"));
  EXPECT_TRUE(config.attention_bias);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.norm_topk_prob);
  EXPECT_EQ(config.shared_expert_width, 0);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(1, 2));
  EXPECT_FALSE(config.bos_token_id);
  EXPECT_EQ(config.mtp_layers, 0);
}

TEST(Config, AcceptsTheQuantisationOfTheFp8Release) {
  const Config config = parse_config(with(
      R"("quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
         "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]})"));
  EXPECT_EQ(config.quantization, Quantization::fp8);
}

TEST(Config, RefusesOtherKindsByName) {
  expect_error(R"("model_type": "llama")",
               "model_type is \"llama\"; qnext runs models of type "
               "\"qwen3_next\"");
  expect_error(R"("model_type": null)", "there is no model_type");
  expect_value_error(json::Value(json::Array{}), "expected an object, found an array");
  expect_error(R"("hidden_act": "gelu")", "hidden_act \"gelu\" is not supported");
  for (const char* type : {"linear", "dynamic", "longrope", "llama3"})
    expect_error(fmt::format(R"("rope_scaling": {{"rope_type": "{}", "factor": 2}})", type),
                 fmt::format("rope_scaling: rope_type \"{}\" is not supported", type));
  expect_error(R"("quantization_config": {"quant_method": "awq"})",
               "quantization_config: quant_method \"awq\" is not supported");
  expect_error(R"("quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 128]})",
               "weight_block_size [64, 128] is not supported");
  expect_error(R"("quantization_config": {"quant_method": "fp8"})", "weight_block_size [] is not");
  expect_error(R"("quantization_config": {"quant_method": "fp8", "fmt": "e5m2"})", "fmt \"e5m2\"");
  expect_error(R"("layer_types": 3)", "layer_types is an integer, not a list");
  expect_error(R"("num_hidden_layers": 1, "layer_types": ["mamba"])", "layer_types[0] \"mamba\"");
  expect_error(R"("num_hidden_layers": 1, "layer_types": [1])", "layer_types[0] is an integer");
}

TEST(Config, RefusesSizesOutOfRange) {
  for (const char* field :
       {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "linear_num_key_heads", "linear_num_value_heads",
        "linear_key_head_dim", "linear_value_head_dim", "linear_conv_kernel_dim",
        "num_experts_per_tok", "moe_intermediate_size", "intermediate_size",
        "max_position_embeddings", "full_attention_interval", "decoder_sparse_step"})
    for (const char* value : {"0", "-1", "9223372036854775807"})
      expect_error(fmt::format("\"{}\": {}", field, value),
                   fmt::format("{} = {} is out of range", field, value));
  expect_error(R"("num_experts": -1)", "num_experts = -1 is out of range");
  expect_error(R"("shared_expert_intermediate_size": -1)", "is out of range");
  expect_error(R"("num_nextn_predict_layers": 2)", "num_nextn_predict_layers = 2 is out of range");
  expect_error(R"("rms_norm_eps": 0)", "rms_norm_eps = 0 must be above 0");
  expect_error(R"("rms_norm_eps": 1)", "rms_norm_eps = 1 must be below 1");
  expect_error(R"("rope_theta": -1)", "rope_theta = -1 must be above 0");
  expect_error(R"("eos_token_id": -1)", "eos_token_id -1 is not a token");
  expect_error(R"("bos_token_id": -1)", "bos_token_id = -1 is out of range");
  expect_error(R"("mlp_only_layers": [48])", "mlp_only_layers names layer 48");
  expect_error(R"("mlp_only_layers": [-1])", "mlp_only_layers names layer -1");
}

TEST(Config, RefusesWrongKindsOfValues) {
  expect_error(R"("hidden_size": "2048")", "hidden_size: expected a whole number, found a string");
  expect_error(R"("hidden_size": 2048.5)", "hidden_size: expected a whole number, found 2048.5");
  expect_error(R"("attention_bias": 1)", "attention_bias: expected true or false");
  expect_error(R"("rms_norm_eps": "x")", "rms_norm_eps: expected a number, found a string");
  expect_error(R"("hidden_act": 1)", "hidden_act: expected a string, found an integer");
  expect_error(R"("eos_token_id": ["x"])", "eos_token_id: expected a whole number");
  expect_error(R"("rope_scaling": 3)", "rope_scaling: expected an object, found an integer");
}

TEST(Config, RefusesSizesThatDoNotFitTogether) {
  expect_error(R"("num_key_value_heads": 3)",
               "num_attention_heads = 16 is not a multiple of num_key_value_heads = 3");
  expect_error(R"("linear_num_key_heads": 5)",
               "linear_num_value_heads = 32 is not a multiple of linear_num_key_heads = 5");
  expect_error(R"("num_experts": 8)", "num_experts_per_tok = 10 is above num_experts = 8");
  expect_error(R"("num_experts": 1000000)", "num_experts = 1000000 times num_hidden_layers = 48");
  expect_error(R"("head_dim": 1048576)", "num_attention_heads = 16 times head_dim = 1048576");
  expect_error(R"("linear_key_head_dim": 1048576)", "linear_num_key_heads = 16 times");
  expect_error(R"("linear_value_head_dim": 1048576)", "linear_num_value_heads = 32 times");
  expect_error(R"("partial_rotary_factor": 1.5)", "partial_rotary_factor = 1.5 is out of range");
  expect_error(R"("partial_rotary_factor": 0)", "partial_rotary_factor = 0 is out of range");
  expect_error(R"("head_dim": 12)", "gives 3 rotary dimensions");
  expect_error(R"("head_dim": 4)", "gives 1 rotary dimensions");
  expect_error(R"("layer_types": ["full_attention"])",
               "layer_types has 1 entries, but num_hidden_layers = 48");
  const auto yarn = [](const std::string& members, const std::string& part) {
    expect_error(R"("rope_scaling": {"rope_type": "yarn", )" + members + "}", part);
  };
  yarn(R"("factor": 0.5)", "rope_scaling: factor = 0.5 is out of range");
  yarn(R"("factor": 1e7)", "factor = 10000000 is out of range");
  yarn(R"("beta_fast": 1, "beta_slow": 2)", "beta_fast = 1 is less than beta_slow = 2");
  yarn(R"("original_max_position_embeddings": 0)", "original_max_position_embeddings = 0 is out");
}

TEST(Config, LoadNamesTheFile) {
  TemporaryFolder folder;
  EXPECT_THAT([&] { load_config(folder.path()); },
              ThrowsMessage<Error>(HasSubstr("cannot open " + folder / "config.json")));
  write_file(folder / "config.json", R"({"model_type": "bert"})");
  EXPECT_THAT([&] { load_config(folder.path()); },
              ThrowsMessage<Error>(HasSubstr(folder / "config.json" + ": model_type is \"bert\"")));
}

TEST(GenerationConfig, ReadsTheBundledModel) {
  const GenerationConfig config =
      load_generation_config(QNEXT_SOURCE_DIR "/models/tiny-shakespeare");
  EXPECT_EQ(config.do_sample, true);
  EXPECT_EQ(config.temperature, 0.8);
  EXPECT_EQ(config.top_p, 0.95);
  EXPECT_EQ(config.top_k, 40);
  EXPECT_FALSE(config.min_p);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2045));
}

TEST(GenerationConfig, AnAbsentFileSaysNothing) {
  EXPECT_EQ(load_generation_config(TemporaryFolder().path()), GenerationConfig{});
}

TEST(GenerationConfig, ReadsEveryField) {
  const GenerationConfig config = parse_generation_config(json::parse(
      R"({"do_sample": false, "min_p": 0.1, "repetition_penalty": 1.05, "presence_penalty": 1.5,
          "frequency_penalty": -1, "max_new_tokens": 100, "eos_token_id": [3, 4],
          "bos_token_id": 1, "pad_token_id": 2, "transformers_version": "4.57.0"})",
      "test"));
  EXPECT_EQ(config.do_sample, false);
  EXPECT_EQ(config.min_p, 0.1);
  EXPECT_EQ(config.repetition_penalty, 1.05);
  EXPECT_EQ(config.presence_penalty, 1.5);
  EXPECT_EQ(config.frequency_penalty, -1);
  EXPECT_EQ(config.max_new_tokens, 100);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(3, 4));
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.pad_token_id, 2);
}

TEST(GenerationConfig, RefusesBadValues) {
  for (const auto& [members, part] :
       {std::pair<const char*, const char*>{R"({"temperature": -1})",
                                            "temperature = -1 is out of range"},
        {R"({"top_p": 1.5})", "top_p = 1.5 is out of range"},
        {R"({"min_p": -0.5})", "min_p = -0.5 is out of range"},
        {R"({"top_k": -1})", "top_k = -1 is out of range"},
        {R"({"top_k": 1.5})", "top_k: expected a whole number"},
        {R"({"max_new_tokens": 0})", "max_new_tokens = 0 is out"},
        {R"({"repetition_penalty": 0})", "repetition_penalty = 0"},
        {R"({"eos_token_id": [-1]})", "eos_token_id -1 is not"},
        {"[]", "expected an object, found an array"}})
    EXPECT_THAT(
        [&] { parse_generation_config(json::parse(members, "test")); },
        ThrowsMessage<Error>(AllOf(StartsWith("generation_config.json: "), HasSubstr(part))));
}

TEST(Preset, SizesChangeOneByOne) {
  json::Value config = preset_config("qwen3-next-80b-a3b");
  set_size(config, "layers", 8);
  set_size(config, "hidden-size", 64);
  EXPECT_EQ(parse_config(config).layers.size(), 8u);
  EXPECT_EQ(parse_config(config).hidden_size, 64);
  // Every name reaches a field that the config knows: 0 or a change of sizes is noticed.
  const Config before = parse_config(config);
  for (const std::string& name : size_names()) {
    json::Value changed = config;
    set_size(changed, name, 2);
    if (name == "attention-heads" || name == "kv-heads") set_size(changed, "kv-heads", 1);
    if (name == "linear-value-heads") set_size(changed, "linear-key-heads", 2);
    if (name == "experts") set_size(changed, "experts-per-token", 1);
    if (name == "head-dim") set_size(changed, "head-dim", 16);
    EXPECT_FALSE(parse_config(changed) == before) << name;
  }
}

TEST(Preset, UnknownNamesListTheKnownOnes) {
  json::Value config = preset_config("qwen3-next-80b-a3b");
  EXPECT_THAT([&] { preset_config("gpt"); },
              ThrowsMessage<Error>(HasSubstr("unknown preset \"gpt\"; known: qwen3-next-80b-a3b")));
  EXPECT_THAT([&] { set_size(config, "size", 1); },
              ThrowsMessage<Error>(HasSubstr("unknown size \"size\"; known: layers, hidden-size")));
  EXPECT_THAT([&] { set_size(config, "layers", -1); },
              ThrowsMessage<Error>(HasSubstr("layers = -1 must not be negative")));
}

}  // namespace
}  // namespace qnext
