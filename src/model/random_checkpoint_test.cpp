#include "model/random_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/finite.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/temporary_folder.h"
#include "model/preset.h"
#include "model/random_weights.h"

namespace qnext {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

// About 10 MB in bf16; widths that are no multiples of 128 or of anything else.
json::Value small_config() {
  json::Value config = preset_config("qwen3-next-80b-a3b");
  for (const auto& [name, value] : {std::pair{"layers", 4},
                                    {"hidden-size", 198},
                                    {"vocabulary-size", 1001},
                                    {"experts", 16},
                                    {"experts-per-token", 4},
                                    {"expert-width", 130},
                                    {"shared-expert-width", 66},
                                    {"head-dim", 40},
                                    {"linear-key-head-dim", 12},
                                    {"linear-value-head-dim", 20}})
    set_size(config, name, value);
  return config;
}

std::vector<std::string> files_of(const TemporaryFolder& folder) {
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(folder.path()))
    names.push_back(file.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<float> values_of(const Checkpoint& checkpoint, const std::string& name) {
  const StoredTensor& tensor = checkpoint.get(name);
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  convert_to_float(tensor.dtype, tensor.data, values.data(), values.size());
  if (const StoredTensor* scale = checkpoint.find(fp8_scale_name(name))) {
    const std::vector<float> scales = values_of(checkpoint, scale->name);
    const int64_t columns = tensor.shape[1];
    for (int64_t i = 0; i < tensor.elements(); ++i)
      values[static_cast<size_t>(i)] *=
          scales[static_cast<size_t>(i / columns / 128 * scale->shape[1] + i % columns / 128)];
  }
  return values;
}

std::pair<double, double> mean_and_variance(const std::vector<float>& values) {
  double sum = 0;
  double squares = 0;
  for (float value : values) {
    sum += value;
    squares += double{value} * value;
  }
  const double n = static_cast<double>(values.size());
  return {sum / n, squares / n - sum / n * sum / n};
}

TEST(RandomCheckpoint, LoadsAndPassesTheChecks) {
  for (DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3})
    for (bool with_mtp : {false, true}) {
      TemporaryFolder folder;
      uint64_t done = 0;
      uint64_t total = 0;
      RandomCheckpointOptions options;
      options.dtype = dtype;
      options.with_mtp = with_mtp;
      options.threads = 1;
      options.progress = [&](uint64_t now, uint64_t all) {
        EXPECT_GE(now, done);
        done = now;
        total = all;
      };
      write_random_checkpoint(folder.path(), small_config(), options);
      EXPECT_THAT(files_of(folder), ElementsAre("config.json", "model.safetensors"));
      const Config config = load_config(folder.path());
      const Checkpoint checkpoint(folder.path());
      const WeightReport report = check_weights(config, checkpoint);
      EXPECT_EQ(report.has_mtp, with_mtp);
      EXPECT_THAT(report.unknown, IsEmpty());
      EXPECT_EQ(report.bytes, total);
      EXPECT_EQ(done, total);
      EXPECT_EQ(config.quantization == Quantization::fp8, dtype == DType::f8_e4m3);
      for (const StoredTensor& tensor : checkpoint.tensors()) check_finite(tensor);
    }
}

TEST(RandomCheckpoint, VariancesKeepActivationsOfOrderOne) {
  for (DType dtype : {DType::bf16, DType::f8_e4m3}) {
    TemporaryFolder folder;
    RandomCheckpointOptions options;
    options.dtype = dtype;
    write_random_checkpoint(folder.path(), small_config(), options);
    const Config config = load_config(folder.path());
    const Checkpoint checkpoint(folder.path());
    for (const WeightSpec& spec : weight_schema(config)) {
      const std::vector<float> values = values_of(checkpoint, spec.name);
      if (values.size() < 4000) continue;
      const bool to_residual = spec.name.ends_with("down_proj.weight") ||
                               spec.name.ends_with("o_proj.weight") ||
                               spec.name.ends_with("out_proj.weight");
      double expected = 1.0 / static_cast<double>(spec.shape.back());
      if (to_residual) expected /= 8;  // 2 * layers
      if (spec.role == WeightRole::embedding) expected = 1;
      const auto [mean, variance] = mean_and_variance(values);
      const double n = static_cast<double>(values.size());
      // Six standard errors: of the mean sqrt(v / n), of a uniform's variance v * sqrt(0.8 / n).
      EXPECT_NEAR(mean, 0, 6 * std::sqrt(expected / n)) << spec.name;
      // An FP8 matrix of few blocks has scales within 25 % of the middle, and so their squares
      // within 57 %; E4M3 itself adds 2^-8 / 3 of the variance at most.
      const double slack = dtype == DType::f8_e4m3 && stored_in_fp8(spec.role) ? 0.57 : 0.004;
      EXPECT_NEAR(variance / expected, 1, 6 * std::sqrt(0.8 / n) + slack) << spec.name;
    }
  }
}

TEST(RandomCheckpoint, FollowsTheInitialisationOfTheDecay) {
  TemporaryFolder folder;
  json::Value json = small_config();
  set_size(json, "linear-value-heads", 4096);
  set_size(json, "hidden-size", 8);
  write_random_checkpoint(folder.path(), json, {});
  const Checkpoint checkpoint(folder.path());
  std::vector<float> decay = values_of(checkpoint, "model.layers.0.linear_attn.A_log");
  for (float& value : decay) value = std::exp(value);
  const auto [mean, variance] = mean_and_variance(decay);
  EXPECT_NEAR(mean, 8, 6 * std::sqrt(256.0 / 12 / 4096));
  EXPECT_NEAR(variance / (256.0 / 12), 1, 6 * std::sqrt(0.8 / 4096) + 0.01);
  for (float value : values_of(checkpoint, "model.layers.0.linear_attn.dt_bias"))
    EXPECT_NEAR(value, 1, 0.06);
  for (float value : values_of(checkpoint, "model.layers.0.linear_attn.norm.weight"))
    EXPECT_NEAR(value, 1, 0.06);
  for (float value : values_of(checkpoint, "model.norm.weight")) EXPECT_NEAR(value, 0, 0.051);
}

TEST(RandomCheckpoint, BitsDependOnTheSeedAndNotOnThreads) {
  const auto bytes = [](DType dtype, uint64_t seed, int threads) {
    TemporaryFolder folder;
    RandomCheckpointOptions options;
    options.dtype = dtype;
    options.seed = seed;
    options.threads = threads;
    write_random_checkpoint(folder.path(), small_config(), options);
    return read_file(folder / "model.safetensors");
  };
  for (DType dtype : {DType::bf16, DType::f8_e4m3}) {
    const std::string one = bytes(dtype, 7, 1);
    EXPECT_TRUE(one == bytes(dtype, 7, 3));
    EXPECT_FALSE(one == bytes(dtype, 8, 1));
  }
}

TEST(RandomCheckpoint, ShardsHoldTheSameTensors) {
  TemporaryFolder whole;
  TemporaryFolder folder;
  RandomCheckpointOptions options;
  options.dtype = DType::f8_e4m3;
  options.threads = 1;
  write_random_checkpoint(whole.path(), small_config(), options);
  options.shard_bytes = 1'000'000;
  write_random_checkpoint(folder / "new/deeper", small_config(), options);
  const Checkpoint expected(whole.path());
  const Checkpoint found(folder / "new/deeper");
  EXPECT_GT(found.maps().size(), 3u);
  ASSERT_EQ(found.tensors().size(), expected.tensors().size());
  for (const StoredTensor& tensor : expected.tensors()) {
    const StoredTensor& twin = found.get(tensor.name);
    ASSERT_EQ(twin.shape, tensor.shape);
    EXPECT_TRUE(
        std::equal(tensor.data, tensor.data + tensor.bytes, twin.data, twin.data + twin.bytes));
    const StoredTensor* scale = found.find(fp8_scale_name(tensor.name));
    EXPECT_TRUE(!scale || scale->file == twin.file) << tensor.name;
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder / "new/deeper")) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsFile file(entry.path());
    EXPECT_THAT(file.path(), ::testing::ContainsRegex("model-000[0-9]+-of-000[0-9]+.safetensors"));
    // A tensor larger than a shard has one to itself, with its scales.
    EXPECT_TRUE(file.tensors().size() <= 2 || file.map().size() <= 1'020'000) << file.path();
  }
}

TEST(RandomCheckpoint, RefusesWhatItCannotMake) {
  TemporaryFolder folder;
  json::Value bad = small_config();
  set_size(bad, "kv-heads", 3);
  EXPECT_THAT([&] { write_random_checkpoint(folder.path(), bad, {}); },
              ThrowsMessage<Error>(HasSubstr("is not a multiple of num_key_value_heads")));
  RandomCheckpointOptions integers;
  integers.dtype = DType::i32;
  EXPECT_THAT([&] { write_random_checkpoint(folder.path(), small_config(), integers); },
              ThrowsMessage<Error>(HasSubstr("cannot make random weights of I32")));
  json::Value huge = small_config();  // 70 TB of embeddings
  set_size(huge, "hidden-size", 1 << 20);
  set_size(huge, "vocabulary-size", 1 << 24);
  EXPECT_THAT([&] { write_random_checkpoint(folder.path(), huge, {}); },
              ThrowsMessage<Error>(HasSubstr("MB are free")));
  EXPECT_THAT(files_of(folder), IsEmpty());
  write_file(folder / "model.safetensors", "precious");
  EXPECT_THAT([&] { write_random_checkpoint(folder.path(), small_config(), {}); },
              ThrowsMessage<Error>(HasSubstr("already holds a checkpoint (model.safetensors)")));
  EXPECT_EQ(read_file(folder / "model.safetensors"), "precious");
}

TEST(RandomCheckpoint, LeavesNothingBehindWhenStopped) {
  TemporaryFolder folder;
  RandomCheckpointOptions options;
  options.shard_bytes = 1'000'000;
  options.progress = [](uint64_t done, uint64_t total) {
    if (done > total / 2) fail("stopped");
  };
  EXPECT_THAT([&] { write_random_checkpoint(folder.path(), small_config(), options); },
              ThrowsMessage<Error>(HasSubstr("stopped")));
  EXPECT_THAT(files_of(folder), IsEmpty());
}

TEST(UniformStream, PiecesGiveTheSameBits) {
  const UniformStream stream(3, "tensor");
  const Distribution distribution{0.5f, 2.0f};
  std::vector<float> whole(5003);
  fill_random(stream, distribution, DType::f32, 0, whole.size(), whole.data());
  for (size_t begin : {4u, 1000u, 4096u}) {
    std::vector<float> part(whole.size() - begin);
    fill_random(stream, distribution, DType::f32, begin, part.size(), part.data());
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<long>(begin)));
  }
  for (size_t i = 0; i < whole.size(); ++i)
    EXPECT_NEAR(whole[i], 0.5f + 2.0f * stream.value(i), 1e-6);
}

}  // namespace
}  // namespace qnext
