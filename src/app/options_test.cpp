#include "app/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace qnext::app {
namespace {

TEST(SamplingOptions, AModelThatSaysNothingIsRunGreedily) {
  const auto parameters = SamplingOptions{}.resolve({});
  EXPECT_EQ(parameters.temperature, 0);
  EXPECT_EQ(parameters.top_p, 1);
  EXPECT_EQ(parameters.top_k, 0);
  EXPECT_EQ(parameters.repetition_penalty, 1);
}

TEST(SamplingOptions, TheModelsDefaultsHoldWhereNothingIsGiven) {
  GenerationConfig model;
  model.do_sample = true;
  model.temperature = 0.7;
  model.top_p = 0.8;
  model.top_k = 20;
  SamplingOptions options;
  options.top_p = 0.5f;
  const auto parameters = options.resolve(model);
  EXPECT_FLOAT_EQ(parameters.temperature, 0.7f);
  EXPECT_FLOAT_EQ(parameters.top_p, 0.5f);
  EXPECT_EQ(parameters.top_k, 20);
}

TEST(SamplingOptions, DoSampleFalseIsGreedyUnlessATemperatureIsGiven) {
  GenerationConfig model;
  model.do_sample = false;
  model.temperature = 0.7;
  EXPECT_EQ(SamplingOptions{}.resolve(model).temperature, 0);
  SamplingOptions options;
  options.temperature = 0.3f;
  EXPECT_FLOAT_EQ(options.resolve(model).temperature, 0.3f);
}

TEST(SamplingOptions, DoSampleWithoutATemperatureIsTemperatureOne) {
  GenerationConfig model;
  model.do_sample = true;
  EXPECT_EQ(SamplingOptions{}.resolve(model).temperature, 1);
}

TEST(SamplingOptions, SeedsAreTakenOrDrawn) {
  SamplingOptions options;
  EXPECT_NE(options.resolve({}).seed, options.resolve({}).seed);
  options.seed = 7;
  EXPECT_EQ(options.resolve({}).seed, 7u);
}

TEST(SamplingOptions, ReadsLogitBias) {
  SamplingOptions options;
  options.logit_bias = {"42=-5", "7=1.5"};
  EXPECT_THAT(options.resolve({}).logit_bias,
              testing::ElementsAre(testing::Pair(42, -5.0f), testing::Pair(7, 1.5f)));
  for (const char* bad : {"42", "=1", "42=", "x=1", "42=1x", "42 =1", "99999999999=1"}) {
    options.logit_bias = {bad};
    EXPECT_THROW(options.resolve({}), Error) << bad;
  }
}

TEST(MachineOptions, EachDeviceNamesWhatItCannotDo) {
  MachineOptions options;
  EXPECT_FALSE(options.why_not_on_cpu());
  EXPECT_FALSE(options.why_not_on_gpu());
  const auto with = [](std::string MachineOptions::*field, const char* value) {
    MachineOptions changed;
    changed.*field = value;
    return changed;
  };
  EXPECT_FALSE(with(&MachineOptions::quantize, "q4_0").why_not_on_cpu());
  EXPECT_FALSE(with(&MachineOptions::quantize, "q4_0").why_not_on_gpu());
  EXPECT_FALSE(with(&MachineOptions::quantize, "q8_0").why_not_on_cpu());
  EXPECT_THAT(*with(&MachineOptions::quantize, "q8_0").why_not_on_gpu(),
              testing::HasSubstr("q4_0 or f8"));
  EXPECT_FALSE(with(&MachineOptions::kv_type, "q8_0").why_not_on_cpu());
  EXPECT_THAT(*with(&MachineOptions::kv_type, "q8_0").why_not_on_gpu(),
              testing::HasSubstr("bf16 or f8"));
  EXPECT_EQ(with(&MachineOptions::kv_type, "q8_0").kv_dtype(), DType::q8_0);
  for (const MachineOptions& gpu_only :
       {with(&MachineOptions::quantize, "f8"), with(&MachineOptions::kv_type, "f8"),
        with(&MachineOptions::state_type, "bf16"), with(&MachineOptions::activations, "f8"),
        with(&MachineOptions::backend_path, "eager")}) {
    EXPECT_TRUE(gpu_only.why_not_on_cpu());
    EXPECT_FALSE(gpu_only.why_not_on_gpu());
  }
  EXPECT_FALSE(with(&MachineOptions::quantize, "q4_k").why_not_on_cpu());
  EXPECT_TRUE(with(&MachineOptions::quantize, "q4_k").why_not_on_gpu());
  EXPECT_EQ(with(&MachineOptions::quantize, "q5_k").quantization(), DType::q5_k);
  EXPECT_EQ(with(&MachineOptions::quantize, "f8").quantization(), DType::f8_e4m3);
  EXPECT_EQ(with(&MachineOptions::kv_type, "f8").kv_dtype(), DType::f8_e4m3);
  EXPECT_EQ(with(&MachineOptions::state_type, "bf16").state_dtype(), DType::bf16);
  EXPECT_EQ(MachineOptions().activations_dtype(), DType::bf16);
  EXPECT_EQ(with(&MachineOptions::activations, "f8").activations_dtype(), DType::f8_e4m3);
}

}  // namespace
}  // namespace qnext::app
