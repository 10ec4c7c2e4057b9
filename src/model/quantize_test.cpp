#include "model/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "checkpoint/gguf.h"
#include "checkpoint/temporary_folder.h"
#include "model/gguf_config.h"
#include "model/gguf_weights.h"
#include "model/preset.h"
#include "model/random_checkpoint.h"
#include "model/testing/gguf_conversion.h"
#include "tensor/encode_row.h"

namespace qnext {
namespace {

using ::testing::AllOf;
using testing::FloatTensors;
using testing::GgufConversion;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

json::Value sizes(const std::map<std::string, int64_t>& changed = {}) {
  json::Value config = preset_config("qwen3-next-80b-a3b");
  std::map<std::string, int64_t> all = {{"layers", 4},
                                        {"hidden-size", 96},
                                        {"vocabulary-size", 301},
                                        {"experts", 5},
                                        {"experts-per-token", 2},
                                        {"expert-width", 40},
                                        {"shared-expert-width", 24},
                                        {"head-dim", 40},
                                        {"linear-key-heads", 3},
                                        {"linear-value-heads", 6},
                                        {"linear-key-head-dim", 12},
                                        {"linear-value-head-dim", 20}};
  for (const auto& [name, value] : changed) all[name] = value;
  for (const auto& [name, value] : all) set_size(config, name, value);
  return config;
}

// A checkpoint of random weights and what is made of it.
class Quantize : public ::testing::Test {
 protected:
  void make(json::Value json_config, DType dtype = DType::f32) {
    const std::string to = folder_ / "model";
    std::filesystem::remove_all(to);
    write_random_checkpoint(to, std::move(json_config), {.dtype = dtype, .progress = {}});
    config_ = load_config(to);
    checkpoint_.emplace(to);
    check_weights(config_, *checkpoint_);
  }
  std::string path() const { return folder_ / "x.gguf"; }
  std::vector<QuantizedTensor> write(const QuantizeOptions& options) const {
    GgufPairs metadata;
    write_gguf_config(config_, config_.mtp_layers > 0, metadata);
    return quantize(config_, *checkpoint_, config_.mtp_layers > 0, metadata, path(), options);
  }
  size_t files() const {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_ / ""))
      ++count;
    return count;
  }

  TemporaryFolder folder_;
  Config config_;
  std::optional<Checkpoint> checkpoint_;
};

TEST_F(Quantize, PutsEveryValueWhereThePublishedConverterDoes) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    make(sizes(), dtype);
    write({.type = DType::f32});
    const GgufFiles files(path());
    const FloatTensors expected = GgufConversion(config_, {}).to_gguf(*checkpoint_);
    EXPECT_EQ(files.tensors().size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      const StoredTensor* found = files.find(name);
      ASSERT_NE(found, nullptr) << name;
      EXPECT_EQ(found->dtype, DType::f32);
      EXPECT_EQ(found->shape, tensor.shape) << name;
      EXPECT_EQ(widened(*found), tensor.values) << name;
    }
  }
}

// The reference's own file, made elsewhere; it has no MTP head.
TEST_F(Quantize, GivesTheTensorsOfTheReferencesFile) {
  const std::string folder = QNEXT_SOURCE_DIR "/tests/data/g2-heads";
  const Checkpoint checkpoint(folder);
  quantize(load_config(folder), checkpoint, false, {}, path(), {.type = DType::f32});
  const GgufFiles expected(folder + "/model-f32.gguf"), found(path());
  ASSERT_EQ(found.tensors().size(), expected.tensors().size());
  for (const StoredTensor& tensor : expected.tensors()) {
    const StoredTensor* same = found.find(tensor.name);
    ASSERT_NE(same, nullptr) << tensor.name;
    EXPECT_EQ(same->shape, tensor.shape) << tensor.name;
    const std::vector<float> values = widened(*same), others = widened(tensor);
    if (!tensor.name.ends_with("ssm_a")) {
      EXPECT_EQ(values, others) << tensor.name;
    }
    // The exp() of two libraries, each within a unit in the last place.
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_NEAR(values[i], others[i], 0x1p-22f * std::abs(others[i])) << tensor.name;
  }
}

TEST_F(Quantize, ReadsFp8WithItsScales) {
  make(sizes(), DType::f8_e4m3);
  write({.type = DType::f32});
  const GgufFiles files(path());
  const Checkpoint found = gguf_checkpoint(files, read_gguf_config(files));
  int compared = 0;
  for (const StoredTensor& tensor : checkpoint_->tensors()) {
    if (tensor.dtype != DType::f8_e4m3) continue;
    ++compared;
    std::vector<float> expected = widened(tensor);
    const std::vector<float> scales = widened(checkpoint_->get(fp8_scale_name(tensor.name)));
    const int64_t columns = tensor.shape[1], blocks = (columns + 127) / 128;
    for (int64_t i = 0; i < std::ssize(expected); ++i)
      expected[static_cast<size_t>(i)] *=
          scales[static_cast<size_t>(i / columns / 128 * blocks + i % columns / 128)];
    EXPECT_EQ(widened(found.get(tensor.name)), expected) << tensor.name;
  }
  EXPECT_GT(compared, 10);
}

TEST_F(Quantize, TheConfigIsReadAgain) {
  const auto changed = [](const std::map<std::string, json::Value>& fields) {
    json::Value config = sizes();
    for (const auto& [name, value] : fields) config.as_object().set(name, value);
    return config;
  };
  const json::Value yarn = json::Object{
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 4096}};
  for (const json::Value& config :
       {sizes(), sizes({{"shared-expert-width", 0}}), changed({{"tie_word_embeddings", true}}),
        changed({{"attention_bias", true}}), changed({{"norm_topk_prob", false}}),
        changed({{"mlp_only_layers", json::Array{0, 2}}}), changed({{"rope_scaling", yarn}}),
        changed({{"num_nextn_predict_layers", 0}}),
        changed({{"layer_types", json::Array{"full_attention", "linear_attention", "full_attention",
                                             "linear_attention"}}})}) {
    make(config);
    write({.type = DType::f32});
    const GgufFiles files(path());
    Config found = read_gguf_config(files);
    EXPECT_NEAR(found.rms_norm_eps, config_.rms_norm_eps, 1e-13);  // f32 there
    found.rms_norm_eps = config_.rms_norm_eps;
    found.eos_token_ids = config_.eos_token_ids;  // the tokenizer's
    found.bos_token_id = config_.bos_token_id;
    EXPECT_EQ(found, config_);
    check_weights(found, gguf_checkpoint(files, found));
  }
}

TEST_F(Quantize, GenerationDefaultsAreReadAgain) {
  GenerationConfig config;
  config.temperature = 0.5;
  config.top_p = 0.75;
  config.min_p = 0.125;
  config.top_k = 20;
  config.repetition_penalty = 1.5;
  testing::GgufWriter writer;
  write_gguf_generation_config(config, writer);
  write_file(path(), writer.bytes());
  EXPECT_EQ(read_gguf_generation_config(GgufFiles(path())), config);
  config.do_sample = false;
  testing::GgufWriter greedy;
  write_gguf_generation_config(config, greedy);
  write_file(path(), greedy.bytes());
  EXPECT_EQ(read_gguf_generation_config(GgufFiles(path())).temperature, 0);
}

TEST_F(Quantize, TypesFollowTheRecipe) {
  make(sizes({{"hidden-size", 256}, {"expert-width", 64}, {"linear-value-head-dim", 64}}));
  const auto types = [&](const QuantizeOptions& options) {
    std::map<std::string, DType> out;
    for (const QuantizedTensor& tensor : write(options)) out[tensor.name] = tensor.dtype;
    return out;
  };
  std::map<std::string, DType> found = types({.type = DType::q4_k});
  for (const char* kept :
       {"blk.0.attn_norm.weight", "blk.0.ssm_ba.weight", "blk.0.ssm_a", "blk.0.ssm_conv1d.weight",
        "blk.3.ffn_gate_inp.weight", "blk.3.ffn_gate_inp_shexp.weight", "output_norm.weight"})
    EXPECT_EQ(found.at(kept), DType::f32) << kept;
  EXPECT_EQ(found.at("token_embd.weight"), DType::q6_k);
  EXPECT_EQ(found.at("output.weight"), DType::q6_k);
  EXPECT_EQ(found.at("blk.0.attn_qkv.weight"), DType::q4_k);
  EXPECT_EQ(found.at("blk.4.nextn.eh_proj.weight"), DType::q4_k);
  EXPECT_EQ(found.at("blk.3.ffn_up_exps.weight"), DType::q4_k);
  EXPECT_EQ(found.at("blk.3.ffn_down_exps.weight"), DType::q5_0);   // rows of 64
  EXPECT_EQ(found.at("blk.3.ffn_down_shexp.weight"), DType::bf16);  // rows of 24
  EXPECT_EQ(found.at("blk.3.attn_output.weight"), DType::q5_0);     // rows of 640

  found = types({.type = DType::q8_0,
                 .overrides = {{"*_exps.weight", DType::q2_k},
                               {"blk.3.ffn_up_exps.weight", DType::q5_k},
                               {"blk.?.ffn_gate_inp.weight", DType::q8_0}}});
  EXPECT_EQ(found.at("blk.0.attn_qkv.weight"), DType::q8_0);
  EXPECT_EQ(found.at("blk.2.ffn_up_exps.weight"), DType::q2_k);
  EXPECT_EQ(found.at("blk.2.ffn_down_exps.weight"), DType::iq4_nl);
  EXPECT_EQ(found.at("blk.3.ffn_up_exps.weight"), DType::q5_k);
  EXPECT_EQ(found.at("blk.0.ffn_gate_inp.weight"), DType::q8_0);
  EXPECT_EQ(found.at("blk.0.ffn_gate_inp_shexp.weight"), DType::f32);  // no matrix

  EXPECT_THAT(
      [&] {
        types({.overrides = {{"model.layers.*", DType::q8_0}}});
      },
      ThrowsMessage<Error>(HasSubstr("no matrix of the file is called model.layers.*")));
  for (const std::string& name : quantize_type_names())
    EXPECT_TRUE(can_encode(quantize_type(name))) << name;
  EXPECT_THAT([] { quantize_type("q9"); },
              ThrowsMessage<Error>(HasSubstr("there is no type \"q9\"; there are f32, f16")));
}

TEST_F(Quantize, EveryTypeIsReadAgainWithTheErrorThatWasReported) {
  make(sizes({{"hidden-size", 256}, {"expert-width", 256}}), DType::bf16);
  const FloatTensors exact = GgufConversion(config_, {}).to_gguf(*checkpoint_);
  for (const std::string& name : quantize_type_names()) {
    const std::vector<QuantizedTensor> report = write({.type = quantize_type(name)});
    const GgufFiles files(path());
    for (const QuantizedTensor& tensor : report) {
      const StoredTensor* found = files.find(tensor.name);
      ASSERT_NE(found, nullptr);
      EXPECT_EQ(found->bytes, tensor.bytes);
      EXPECT_EQ(found->elements(), tensor.values);
      const std::vector<float> values = widened(*found);
      const std::vector<float>& expected = exact.at(tensor.name).values;
      double squared_error = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        const double difference = double{values[i]} - expected[i];
        squared_error += difference * difference;
      }
      // Rows are summed first there.
      EXPECT_NEAR(tensor.squared_error, squared_error, 1e-9 * squared_error)
          << name << " " << tensor.name;
    }
  }
}

TEST_F(Quantize, GivesTheSameFileForAnyNumberOfThreads) {
  make(sizes({{"hidden-size", 256}}));
  write({.type = DType::q3_k, .threads = 1});
  const std::string alone = read_file(path());
  for (const int threads : {2, 5}) {
    write({.type = DType::q3_k, .threads = threads});
    EXPECT_EQ(read_file(path()), alone);
  }
}

TEST_F(Quantize, ImportanceCountsByTheNameOfTheWeight) {
  make(sizes({{"hidden-size", 256}}));
  Importance importance;
  std::vector<float>& columns = importance.columns["model.layers.3.mlp.experts.2.up_proj.weight"];
  for (int i = 0; i < 256; ++i) columns.push_back(static_cast<float>(i % 9));
  write({.type = DType::q4_k, .importance = &importance});
  const GgufFiles files(path());
  const StoredTensor& found = *files.find("blk.3.ffn_up_exps.weight");
  for (int64_t expert = 0; expert < config_.experts; ++expert) {
    const std::string name = fmt::format("model.layers.3.mlp.experts.{}.up_proj.weight", expert);
    const std::vector<float> values = widened(checkpoint_->get(name));
    const size_t row_bytes = dtype_bytes(DType::q4_k, 256);
    for (int64_t row = 0; row < config_.expert_width; ++row) {
      std::vector<std::byte> expected(row_bytes);
      encode_row(DType::q4_k, values.data() + 256 * row, expert == 2 ? columns.data() : nullptr,
                 256, expected.data());
      const std::byte* at =
          found.data + static_cast<size_t>(expert * config_.expert_width + row) * row_bytes;
      EXPECT_EQ(std::memcmp(at, expected.data(), row_bytes), 0) << name << " row " << row;
    }
  }
  columns.pop_back();
  EXPECT_THAT([&] { write({.importance = &importance}); },
              ThrowsMessage<Error>(HasSubstr("has 256 columns but importances of 255")));
}

TEST_F(Quantize, LeavesNothingBehindWhereItFails) {
  make(sizes());
  const size_t before = files();
  const auto stop = [](size_t, size_t) { fail("stopped"); };
  EXPECT_THAT([&] { write({.progress = stop}); }, ThrowsMessage<Error>(HasSubstr("stopped")));
  EXPECT_EQ(files(), before);

  // A damaged weight.
  std::string bytes = read_file(folder_ / "model/model.safetensors");
  const StoredTensor& tensor = checkpoint_->get("model.layers.1.mlp.experts.3.down_proj.weight");
  const float bad = NAN;
  std::memcpy(bytes.data() + tensor.offset + 4 * 41, &bad, 4);
  write_file(folder_ / "model/model.safetensors", bytes);
  checkpoint_.emplace(folder_ / "model");
  EXPECT_THAT([&] { write({.threads = 2}); },
              ThrowsMessage<Error>(AllOf(HasSubstr("tensor blk.1.ffn_down_exps.weight: row "),
                                         HasSubstr("value 1 is not a finite number"))));
  EXPECT_EQ(files(), before);
}

}  // namespace
}  // namespace qnext
