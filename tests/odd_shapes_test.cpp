// Random checkpoints of sizes that no release has, in every stored type: a backend against the
// fp64 oracle forward, whole and cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "checkpoint/temporary_folder.h"
#include "model/oracle_forward.h"
#include "model/preset.h"
#include "model/random_checkpoint.h"
#include "tests/models.h"
#include "tests/shown.h"

namespace qnext {
namespace {

using testing::run;
using testing::Shown;

struct Case {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::pair<std::string, int64_t>> sizes;  // over the small ones below
  json::Object fields;                                 // of config.json
};

json::Value small_config(const Case& test) {
  json::Value config = preset_config("qwen3-next-80b-a3b");
  for (const auto& [name, value] : std::vector<std::pair<std::string, int64_t>>{
           {"layers", 4},
           {"hidden-size", 48},
           {"vocabulary-size", 130},
           {"attention-heads", 4},
           {"kv-heads", 2},
           {"head-dim", 16},
           {"linear-key-heads", 2},
           {"linear-value-heads", 4},
           {"linear-key-head-dim", 16},
           {"linear-value-head-dim", 16},
           {"experts", 8},
           {"experts-per-token", 3},
           {"expert-width", 24},
           {"shared-expert-width", 40},
           {"dense-width", 56},
           {"context", 512},
       })
    set_size(config, name, value);
  for (const auto& [name, value] : test.sizes) set_size(config, name, value);
  for (const auto& [name, value] : test.fields) config.as_object().set(name, value);
  return config;
}

std::vector<Case> cases() {
  return {
      {"F32", DType::f32, {}, {}},
      {"BF16", DType::bf16, {}, {}},
      {"F16", DType::f16, {}, {}},
      // More than one scale block each way, none of them whole.
      {"FP8",
       DType::f8_e4m3,
       {{"hidden-size", 136}, {"linear-value-heads", 6}, {"linear-value-head-dim", 24}},
       {}},
      {"OddHeads",
       DType::bf16,
       {{"attention-heads", 9},
        {"kv-heads", 3},
        {"head-dim", 20},
        {"linear-key-heads", 3},
        {"linear-value-heads", 9},
        {"linear-key-head-dim", 10},
        {"linear-value-head-dim", 7}},
       {{"partial_rotary_factor", 0.5}}},
      {"OneOfEach",
       DType::f32,
       {{"attention-heads", 1},
        {"kv-heads", 1},
        {"linear-key-heads", 1},
        {"linear-value-heads", 1},
        {"experts", 1},
        {"experts-per-token", 1}},
       {}},
      {"ThreeTaps", DType::f32, {{"linear-conv-width", 3}}, {}},
      {"OneTap", DType::f32, {{"linear-conv-width", 1}}, {}},
      {"DenseLayer", DType::f32, {}, {{"mlp_only_layers", json::Array{1}}}},
      {"DenseLast", DType::f32, {}, {{"mlp_only_layers", json::Array{0, 3}}}},
      {"TiedEmbeddings", DType::bf16, {}, {{"tie_word_embeddings", true}}},
      {"UnnormalisedTopK", DType::f32, {}, {{"norm_topk_prob", false}}},
      {"ManyExperts",
       DType::f32,
       {{"experts", 512}, {"experts-per-token", 10}, {"expert-width", 8}},
       {}},
      {"EveryExpert", DType::f32, {{"experts-per-token", 8}}, {}},
      {"NoSharedExpert", DType::f32, {{"shared-expert-width", 0}}, {}},
      {"WholeRotary", DType::f32, {}, {{"partial_rotary_factor", 1.0}}},
      {"AttentionBias", DType::f32, {}, {{"attention_bias", true}}},
      {"OnlyAttention", DType::f32, {{"full-attention-interval", 1}}, {}},
      {"OnlyDelta", DType::f32, {{"full-attention-interval", 9}}, {}},
      {"LayerTypes",
       DType::f32,
       {},
       {{"layer_types",
         json::Array{"full_attention", "linear_attention", "full_attention", "linear_attention"}}}},
      {"RopeParameters",
       DType::f32,
       {},
       {{"rope_theta", nullptr},
        {"partial_rotary_factor", nullptr},
        {"rope_parameters", json::Object{{"rope_type", "yarn"},
                                         {"rope_theta", 10000.0},
                                         {"partial_rotary_factor", 0.5},
                                         {"factor", 8.0},
                                         {"original_max_position_embeddings", 32}}}}},
  };
}

class OddShapes : public ::testing::TestWithParam<Case> {
 protected:
  // Of the first expected.size() values; the tolerance of the reference vectors.
  static void compare(const char* what, const std::vector<float>& found,
                      const std::vector<double>& expected) {
    ASSERT_GE(found.size(), expected.size()) << what;
    double error = 0, scale = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      error = std::max(error, std::abs(found[i] - expected[i]));
      scale = std::max(scale, std::abs(expected[i]));
    }
    EXPECT_GT(scale, 0) << what;
    EXPECT_LE(error, 1e-4 * scale) << what;
  }
};

TEST_P(OddShapes, BackendAgreesWithTheOracle) {
  const TemporaryFolder folder;
  write_random_checkpoint(folder / "model", small_config(GetParam()),
                          {.dtype = GetParam().dtype, .seed = 3, .threads = 1, .progress = {}});
  const testing::TestModel model(folder / "model");
  std::mt19937 random(11);
  std::uniform_int_distribution<int32_t> token(
      0, static_cast<int32_t>(model.config.vocabulary_size) - 1);
  std::vector<int32_t> tokens(75);
  for (int32_t& t : tokens) t = token(random);
  const OracleOutputs oracle = oracle_forward(model.config, model.checkpoint, tokens);

  using backend::Observed;
  const auto backend = model.backend(2);
  const Shown whole = run(*backend, tokens, tokens.size());
  const auto layers = static_cast<int>(model.config.layers.size());
  for (int n = 0; n <= layers; ++n)
    compare("residual", whole.all.at({Observed::residual, n}),
            oracle.residuals[static_cast<size_t>(n)]);
  for (int n = 0; n < layers; ++n)
    if (!oracle.router_logits[static_cast<size_t>(n)].empty())
      compare("router", whole.all.at({Observed::router_logits, n}),
              oracle.router_logits[static_cast<size_t>(n)]);
  compare("logits", whole.all.at({Observed::logits, 0}), oracle.logits);
  ASSERT_TRUE(backend->capabilities().has_mtp);
  compare("mtp_hidden", whole.all.at({Observed::mtp_hidden, 0}), oracle.mtp_hidden);
  compare("mtp_logits", whole.all.at({Observed::mtp_logits, 0}), oracle.mtp_logits);

  for (size_t chunk : {1, 17}) {
    const Shown cut = run(*backend, tokens, chunk);
    EXPECT_EQ(cut.all.at({Observed::logits, 0}), whole.all.at({Observed::logits, 0}));
    EXPECT_EQ(cut.all.at({Observed::mtp_logits, 0}), whole.all.at({Observed::mtp_logits, 0}));
  }
}

// Widths that are no multiple of 32 keep their stored type; everything still runs together.
TEST_P(OddShapes, QuantisedModelsRunWhateverTheWidths) {
  const TemporaryFolder folder;
  write_random_checkpoint(folder / "model", small_config(GetParam()),
                          {.dtype = GetParam().dtype, .seed = 3, .threads = 1, .progress = {}});
  const testing::TestModel model(folder / "model");
  const std::vector<int32_t> tokens{1, 77, 3, 129, 0, 12, 12};
  const auto exact = model.backend(1);
  const Shown reference = run(*exact, tokens, tokens.size());
  std::unique_ptr<backend::Backend> backend;
  try {
    backend = model.backend(2, {testing::on_cuda ? DType::f8_e4m3 : DType::q8_0, false});
  } catch (const Error& error) {
    // Tensor cores take widths in multiples of 8 alone, and say so.
    if (!testing::on_cuda ||
        std::string(error.what()).find("--backend-path eager") == std::string::npos)
      throw;
    GTEST_SKIP() << error.what();
  }
  const Shown quantized = run(*backend, tokens, tokens.size());
  const std::vector<float>& a = reference.all.at({backend::Observed::logits, 0});
  const std::vector<float>& b = quantized.all.at({backend::Observed::logits, 0});
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += a[i] * a[i];
  }
  // Eight bits a weight and an activation: under 1 % a matrix; a wrong layout gives above 100 %.
  EXPECT_LT(std::sqrt(difference / norm), 0.25);
}

// Heads that no block of 32 fits are refused in one line before a weight is read.
TEST_P(OddShapes, CachesInBlocksNeedHeadsOfWholeBlocks) {
  if (testing::on_cuda) GTEST_SKIP() << "no such cache there";
  const TemporaryFolder folder;
  write_random_checkpoint(folder / "model", small_config(GetParam()),
                          {.dtype = GetParam().dtype, .seed = 3, .threads = 1, .progress = {}});
  const testing::TestModel model(folder / "model");
  const testing::Way narrow{std::nullopt, true, DType::q8_0};
  if (model.config.head_dim % 32 == 0) {
    EXPECT_EQ(model.backend(1, narrow)->capabilities().page_bytes * 128,
              model.backend(1)->capabilities().page_bytes * 34);
    return;
  }
  try {
    model.backend(1, narrow);
    ADD_FAILURE() << "heads of " << model.config.head_dim;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("head_dim"), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Models, OddShapes, ::testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qnext
