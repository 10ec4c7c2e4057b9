// Models in GGUF files: the reference's own file, conversions of the other reference models, and
// every block type, layout and fault on small ones.
#include "checkpoint/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/verify.h"
#include "backend/common/weights.h"
#include "backend/cpu/cpu_backend.h"
#include "base/error.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/temporary_folder.h"
#include "model/gguf_config.h"
#include "model/gguf_weights.h"
#include "model/oracle_forward.h"
#include "model/preset.h"
#include "model/random_checkpoint.h"
#include "model/testing/gguf_conversion.h"
#include "tests/models.h"
#include "tests/shown.h"
#include "text/gguf_tokenizer.h"

namespace qnext {
namespace {

using ::testing::AllOf;
using testing::data_folder;
using testing::FloatTensors;
using testing::GgufConversion;
using testing::GgufLayout;
using testing::GgufWriter;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TestModel;

struct GgufModel {
  explicit GgufModel(const std::string& path)
      : files(path), config(read_gguf_config(files)), checkpoint(gguf_checkpoint(files, config)) {
    report = check_weights(config, checkpoint);
    // What hints to the kernel about pages go by.
    const auto data_at = [&](size_t file, size_t offset) {
      return checkpoint.maps().at(file)->data() + offset;
    };
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      if (tensor.file == StoredTensor::no_file) continue;
      for (const RowRun& run : tensor.runs) EXPECT_EQ(run.data, data_at(run.file, run.offset));
      if (!tensor.runs.empty()) continue;
      EXPECT_EQ(tensor.data, data_at(tensor.file, tensor.offset)) << tensor.name;
    }
  }
  std::unique_ptr<backend::Backend> backend(std::optional<DType> quantize = {}) const {
    return backend::make_cpu_backend(checkpoint, config, {.threads = 2, .quantize = quantize});
  }

  GgufFiles files;
  Config config;
  Checkpoint checkpoint;
  WeightReport report;
};

void expect_verified(const GgufModel& model, const std::string& vectors_path, size_t checks) {
  const auto backend = model.backend();
  const SafetensorsFile vectors(vectors_path);
  for (const int64_t chunk : {7, 512}) {
    const auto found = app::verify(*backend, vectors, {.tolerance = 1e-4, .chunk = chunk});
    EXPECT_GE(found.size(), checks);
    for (const app::VerifyCheck& check : found)
      EXPECT_TRUE(check.passed) << check.what << ": error " << check.largest_error << " of "
                                << check.scale << ", " << check.tokens_equal << " of "
                                << check.tokens << " tokens equal";
  }
}

// The norm of the difference over the norm of what was expected.
double relative_error(const std::vector<float>& found, const std::vector<float>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    difference += std::pow(double{found[i]} - double{expected[i]}, 2);
    norm += std::pow(double{expected[i]}, 2);
  }
  return std::sqrt(difference / norm);
}

// Made elsewhere, and decoded by a llama.cpp-family engine to the reference's tokens.
TEST(GgufReference, TheFileOfG2GivesItsVectors) {
  const GgufModel model(data_folder("g2-heads") + "/model-f32.gguf");
  EXPECT_FALSE(model.report.has_mtp);
  EXPECT_TRUE(model.report.unknown.empty());
  expect_verified(model, data_folder("g2-heads") + "/vectors.safetensors", 13);
}

// Written by the gguf package (tools/make_gguf_sample.py), which names keys and types on its own.
TEST(GgufReference, TheSampleOfTheGgufPackageRuns) {
  const GgufModel model(testing::source_folder() + "/tests/data/gguf-sample.gguf");
  const Config& c = model.config;
  EXPECT_EQ(c.vocabulary_size, 262);
  EXPECT_EQ(c.layers, (std::vector<LayerKind>{{Mixer::gated_delta_net, Mlp::sparse},
                                              {Mixer::full_attention, Mlp::sparse}}));
  EXPECT_EQ(c.rope.theta, 1e7);
  EXPECT_EQ(c.rope.rotary_dims, 4);
  EXPECT_EQ(c.linear_value_head_dim, 16);
  EXPECT_EQ(c.eos_token_ids, std::vector<int64_t>{259});
  EXPECT_TRUE(model.report.unknown.empty());
  const GenerationConfig generation = read_gguf_generation_config(model.files);
  EXPECT_EQ(generation.top_k, 20);
  EXPECT_EQ(generation.eos_token_ids, std::vector<int64_t>{259});

  const Tokenizer tokenizer = load_gguf_tokenizer(model.files.metadata());
  EXPECT_EQ(tokenizer.vocabulary_size(), 261);
  const auto chat_template = load_gguf_chat_template(model.files.metadata());
  const std::string text = chat_template->render(
      {{"messages", json::Array{json::Object{{"role", "user"}, {"content", "To be"}}}}});
  EXPECT_EQ(text, "<|im_start|>To be<|im_end|>");
  const std::vector<int32_t> tokens = tokenizer.encode(text);
  EXPECT_EQ(tokens, (std::vector<int32_t>{258, 256, 32, 257, 259}));

  // The backend agrees with the oracle as far as 8-bit activations allow, which a wrong layout does
  // not.
  const OracleOutputs oracle = oracle_forward(c, model.checkpoint, tokens);
  const auto shown = testing::run(*model.backend(), tokens, tokens.size());
  const std::vector<float>& found = shown.all.at({backend::Observed::logits, 0});
  ASSERT_EQ(found.size(), oracle.logits.size());
  EXPECT_LT(relative_error(found, {oracle.logits.begin(), oracle.logits.end()}), 0.05);
}

// Where a number is stored as f32.
void expect_same_config(Config found, const Config& expected) {
  EXPECT_EQ(static_cast<float>(found.rms_norm_eps), static_cast<float>(expected.rms_norm_eps));
  EXPECT_EQ(found.rope.theta, expected.rope.theta);
  found.rms_norm_eps = expected.rms_norm_eps;
  found.eos_token_ids = expected.eos_token_ids;  // there is no tokenizer
  EXPECT_EQ(found, expected);
}

class GgufConverted : public ::testing::TestWithParam<std::tuple<std::string, DType>> {};

// With the MTP head, which the published converter leaves out, or writes as blk.N.nextn.
TEST_P(GgufConverted, GivesTheVectorsOfTheFolder) {
  const auto& [name, dtype] = GetParam();
  const std::string folder =
      name == "tiny-shakespeare" ? testing::tiny_shakespeare : data_folder(name);
  const TestModel original(folder);
  const GgufConversion conversion(original.config, {});
  FloatTensors tensors = conversion.to_gguf(original.checkpoint);
  GgufWriter writer;
  conversion.add_metadata(writer);
  testing::add_tensors(writer, tensors, [&, type = dtype](const std::string&) { return type; });
  const TemporaryFolder place;
  write_file(place / "x.gguf", writer.bytes());
  const GgufModel model(place / "x.gguf");
  expect_same_config(model.config, original.config);
  EXPECT_TRUE(model.report.has_mtp);
  expect_verified(model, folder + "/vectors.safetensors", 12);
}
// The weights of all but g1-small are bf16 values.
INSTANTIATE_TEST_SUITE_P(Folders, GgufConverted,
                         ::testing::Values(std::tuple("g1-small", DType::f32),
                                           std::tuple("g2-heads", DType::bf16),
                                           std::tuple("g3-yarn", DType::f32),
                                           std::tuple("tiny-shakespeare", DType::bf16)),
                         [](const auto& test) { return std::get<0>(test.param).substr(0, 2); });

// --- small models, and the same as safetensors -------------------------------------------------

using Fields = json::Object;

// Rows of all matrices are whole blocks of 256.
json::Value small_config(const Fields& fields) {
  json::Value config = preset_config("qwen3-next-80b-a3b");
  for (const auto& [name, value] : std::vector<std::pair<std::string, int64_t>>{
           {"layers", 2},
           {"full-attention-interval", 2},
           {"hidden-size", 256},
           {"vocabulary-size", 130},
           {"attention-heads", 4},
           {"kv-heads", 2},
           {"head-dim", 64},
           {"linear-key-heads", 2},
           {"linear-value-heads", 4},
           {"linear-key-head-dim", 20},
           {"linear-value-head-dim", 64},
           {"experts", 4},
           {"experts-per-token", 2},
           {"expert-width", 256},
           {"shared-expert-width", 256},
           {"dense-width", 256},
           {"context", 512},
       })
    set_size(config, name, value);
  for (const auto& [name, value] : fields) config.as_object().set(name, value);
  return config;
}

using TypeOf = std::function<DType(const std::string&)>;

// A random model as GGUF, in one file or more, and the very same values as F32 safetensors.
class Twins {
 public:
  Twins(const Fields& fields, const GgufLayout& layout, const TypeOf& type, size_t parts = 1) {
    const json::Value config = small_config(fields);
    write_random_checkpoint(folder_ / "random", config,
                            {.dtype = DType::f32, .seed = 3, .threads = 1, .progress = {}});
    const TestModel random(folder_ / "random");
    const GgufConversion conversion(random.config, layout);
    FloatTensors tensors = conversion.to_gguf(random.checkpoint);
    write_parts(conversion, tensors, type, parts);
    std::filesystem::create_directory(folder_ / "twin");
    conversion.write_twin(folder_ / "twin", tensors, config);
    gguf_.emplace(path(0, parts));
    twin_.emplace(folder_ / "twin");
  }

  const GgufModel& gguf() const { return *gguf_; }
  const TestModel& twin() const { return *twin_; }

  // Blocks are held in their own type, and give the values of the twin.
  void expect_blocks_held() const {
    ThreadPool pool(2);
    const backend::ResidentWeights weights(gguf_->checkpoint, gguf_->config, {}, pool);
    const auto expect = [&](const ops::WeightMatrix& held, const std::string& name) {
      const StoredTensor& stored = gguf_->checkpoint.get(name);
      EXPECT_EQ(held.dtype, stored.dtype) << name;
      const std::vector<float> values = widened(twin_->checkpoint.get(name));
      std::vector<float> row(static_cast<size_t>(held.columns));
      for (int64_t n = 0; n < held.rows; ++n) {
        ops::unpack_row(held, n, row.data());
        ASSERT_TRUE(std::equal(row.begin(), row.end(), values.begin() + n * held.columns))
            << name << ", row " << n;
      }
    };
    const backend::ModelWeights& model = weights.model();
    const bool tied = gguf_->config.tie_word_embeddings;
    expect(model.lm_head, tied ? "model.embed_tokens.weight" : "lm_head.weight");
    const auto& delta = std::get<backend::GatedDeltaWeights>(model.layers.at(0).mixer);
    expect(delta.out.weight, "model.layers.0.linear_attn.out_proj.weight");
    expect(delta.qkvz.weight, "model.layers.0.linear_attn.in_proj_qkvz.weight");
    const ops::GatedExpert& expert = model.layers.at(1).mlp.experts.at(2);
    expect(expert.gate, "model.layers.1.mlp.experts.2.gate_proj.weight");
    expect(expert.down, "model.layers.1.mlp.experts.2.down_proj.weight");
    const auto& attention = std::get<backend::AttentionWeights>(model.layers.at(1).mixer);
    expect(attention.k.weight, "model.layers.1.self_attn.k_proj.weight");
  }

  // What 8-bit activations cost: no more than the twin's weights rounded to 8 bits as well, within
  // chance.
  void expect_near_twin() const {
    const auto logits = [](backend::Backend& backend) {
      return testing::run(backend, tokens, tokens.size()).all.at({backend::Observed::logits, 0});
    };
    const std::vector<float> exact = logits(*twin_->backend(2, {}));
    const std::vector<float> rounded = logits(*twin_->backend(2, {.quantize = DType::q8_0}));
    EXPECT_LT(relative_error(logits(*gguf_->backend()), exact),
              1.25 * relative_error(rounded, exact));
  }

  // `twin_quantize`: how the twin is held; the other as it will.
  void expect_same_bits(std::optional<DType> quantize, std::optional<DType> twin_quantize) const {
    const auto found = testing::run(*gguf_->backend(quantize), tokens, tokens.size());
    const auto expected =
        testing::run(*twin_->backend(2, {.quantize = twin_quantize}), tokens, tokens.size());
    ASSERT_EQ(found.all.size(), expected.all.size());
    for (const auto& [what, values] : expected.all) {
      ASSERT_FALSE(values.empty());
      EXPECT_TRUE(std::ranges::all_of(values, [](float v) { return std::isfinite(v); }));
      EXPECT_EQ(found.all.at(what), values)
          << "observed " << static_cast<int>(what.first) << " at " << what.second;
    }
  }

 private:
  inline static const std::vector<int32_t> tokens{1, 77, 3, 129, 0, 12, 12, 64, 5, 99, 100};

  std::string path(size_t part, size_t parts) const {
    return folder_ /
           (parts == 1 ? "m.gguf" : fmt::format("m-{:05}-of-{:05}.gguf", part + 1, parts));
  }

  void write_parts(const GgufConversion& conversion, FloatTensors& tensors, const TypeOf& type,
                   size_t parts) const {
    std::vector<FloatTensors> shares(parts);
    size_t next = 0;
    for (auto& [name, tensor] : tensors) shares[next++ % parts][name] = tensor;
    for (size_t part = 0; part < parts; ++part) {
      GgufWriter writer;
      if (part == 0) conversion.add_metadata(writer);
      writer.add("split.no", static_cast<uint32_t>(part));
      writer.add("split.count", static_cast<uint32_t>(parts));
      testing::add_tensors(writer, shares[part], type);
      write_file(path(part, parts), writer.bytes());
      for (const auto& [name, tensor] : shares[part]) tensors[name] = tensor;
    }
  }

  TemporaryFolder folder_;
  std::optional<GgufModel> gguf_;
  std::optional<TestModel> twin_;
};

class GgufBlocks : public ::testing::TestWithParam<DType> {};

// Blocks stay what they are. Quantised at load they give what their values give, and blocks for
// which there is an encoder give it as they are, too: encoding what was decoded changes nothing.
TEST_P(GgufBlocks, AreHeldAsTheyAre) {
  const DType type = GetParam();
  const Twins twins({}, {}, [&](const std::string&) { return type; });
  twins.expect_blocks_held();
  if (type == DType::q8_0 || type == DType::q4_0)
    twins.expect_same_bits(std::nullopt, type);
  else
    twins.expect_near_twin();
  twins.expect_same_bits(DType::q8_0, DType::q8_0);
  twins.expect_same_bits(DType::q4_0, DType::q4_0);
}
INSTANTIATE_TEST_SUITE_P(Types, GgufBlocks,
                         ::testing::Values(DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0,
                                           DType::q5_1, DType::iq4_nl, DType::q2_k, DType::q3_k,
                                           DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_xs),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

DType as_f32(const std::string&) {
  return DType::f32;
}

TEST(GgufLayouts, FilesOfEveryAgeGiveTheSameBits) {
  for (const GgufLayout& layout :
       {GgufLayout{}, GgufLayout{.old_ssm_in = true}, GgufLayout{.fused_gate_up = true},
        GgufLayout{.fused_qkv = true}})
    Twins({}, layout, as_f32).expect_same_bits({}, {});
}

TEST(GgufLayouts, PartsGiveTheSameBits) {
  Twins({}, {}, as_f32, 3).expect_same_bits({}, {});
}

TEST(GgufLayouts, ModelsOfOtherShapesGiveTheSameBits) {
  for (const Fields& fields :
       {Fields{{"tie_word_embeddings", true}}, Fields{{"attention_bias", true}},
        Fields{{"mlp_only_layers", json::Array{0}}}, Fields{{"shared_expert_intermediate_size", 0}},
        Fields{{"layer_types", json::Array{"full_attention", "linear_attention"}}}})
    Twins(fields, {}, as_f32).expect_same_bits({}, {});
}

TEST(GgufLayouts, ATiedEmbeddingInBlocksServesBothEnds) {
  const Twins twins({{"tie_word_embeddings", true}}, {},
                    [](const std::string&) { return DType::q6_k; });
  twins.expect_blocks_held();
  twins.expect_near_twin();
}

// The published mixes give tensors of a layer different types; in_proj_qkvz is made of two.
TEST(GgufLayouts, MixedTypes) {
  const auto mixed = [](const std::string& name) {
    if (name.find("attn_qkv") != std::string::npos) return DType::q5_k;
    if (name.find("attn_gate") != std::string::npos) return DType::q4_k;
    if (name.find("output") != std::string::npos) return DType::q6_k;
    if (name.find("gate_inp") != std::string::npos) return DType::f32;
    if (name.find("ssm_ba") != std::string::npos) return DType::bf16;
    return name.find("down") != std::string::npos ? DType::q3_k : DType::iq4_xs;
  };
  const Twins twins({}, {}, mixed);
  const StoredTensor& qkvz =
      twins.gguf().checkpoint.get("model.layers.0.linear_attn.in_proj_qkvz.weight");
  EXPECT_EQ(qkvz.stored_types(), (std::vector{DType::q5_k, DType::q4_k}));
  EXPECT_EQ(qkvz.dtype, DType::q5_k);
  twins.expect_blocks_held();
  twins.expect_near_twin();
  twins.expect_same_bits(DType::q4_0, DType::q4_0);

  // No block type holds these together: they become q8_0.
  const auto apart = [](const std::string& name) {
    return name.find("attn_gate") != std::string::npos ? DType::q5_k : DType::q6_k;
  };
  Twins({}, {}, apart).expect_near_twin();

  const auto floats = [](const std::string& name) {
    return name.find("attn_gate") != std::string::npos ? DType::f16 : DType::f32;
  };
  Twins({}, {}, floats).expect_same_bits({}, {});
}

// --- faults ------------------------------------------------------------------------------------

// A good file, to be damaged.
struct Parts {
  Parts() {
    const TemporaryFolder folder;
    write_random_checkpoint(folder / "random", small_config({}),
                            {.dtype = DType::f32, .with_mtp = false, .threads = 1, .progress = {}});
    model.emplace(folder / "random");
    model->config.mtp_layers = 0;
    tensors = GgufConversion(model->config, {}).to_gguf(model->checkpoint);
  }
  std::optional<TestModel> model;
  FloatTensors tensors;
};

std::string error_of(const GgufWriter& writer) {
  const TemporaryFolder folder;
  write_file(folder / "x.gguf", writer.bytes());
  try {
    const GgufModel model(folder / "x.gguf");
    model.backend();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("tensor"), Not(HasSubstr("\n"))));
    return error.what();
  }
  return "";
}

TEST(GgufFaults, NameTheTensor) {
  const Parts good;
  const auto damaged = [&](auto&& damage) {
    FloatTensors tensors = good.tensors;
    damage(tensors);
    GgufWriter writer;
    GgufConversion(good.model->config, {}).add_metadata(writer);
    testing::add_tensors(writer, tensors, as_f32);
    return error_of(writer);
  };
  EXPECT_EQ(damaged([](FloatTensors&) {}), "");
  for (const auto& [name, tensor] : good.tensors) {
    if (name == "output.weight") continue;  // the embedding is lm_head then
    EXPECT_THAT(damaged([&, &missing = name](FloatTensors& t) { t.erase(missing); }),
                HasSubstr(name == "blk.0.attn_gate.weight" || name == "blk.0.attn_qkv.weight"
                              ? "blk.0.attn_"
                              : name))
        << "missing";
    const std::string shape = damaged([&, &changed = name](FloatTensors& t) {
      testing::FloatTensor& bad = t[changed];
      bad.shape.back() += 8;
      bad.values.resize(bad.values.size() * static_cast<size_t>(bad.shape.back()) /
                        static_cast<size_t>(bad.shape.back() - 8));
    });
    EXPECT_THAT(shape, HasSubstr("x.gguf: tensor " + name + " has shape"));
  }
  EXPECT_THAT(damaged([](FloatTensors& t) { t["blk.0.ssm_a"].values[1] = 0.5f; }),
              HasSubstr("tensor blk.0.ssm_a holds 0.5"));
  EXPECT_THAT(damaged([](FloatTensors& t) { t["blk.0.attn_norm.weight"].values[1] = NAN; }),
              HasSubstr("model.layers.0.input_layernorm.weight"));
  EXPECT_THAT(damaged([](FloatTensors& t) { t["blk.0.attn_qkv.weight"].values[99] = NAN; }),
              HasSubstr("model.layers.0.linear_attn.in_proj_qkvz.weight"));
}

}  // namespace
}  // namespace qnext
