// What only the CUDA backend has: its own memory, and what it says when that is short.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/models.h"

namespace qnext {
namespace {

using testing::TestModel;

constexpr int32_t page_count = 2;

// Logits of a step over 90 tokens on the plain kernels, with keys and values kept in `kv`.
std::vector<float> logits_with(const TestModel& model, DType kv) {
  const auto backend = backend::make_cuda_backend(
      model.checkpoint, model.config,
      {.threads = 2, .kv_dtype = kv, .path = backend::CudaOptions::Path::eager});
  std::vector<int32_t> tokens(90), pages(page_count), state_out(tokens.size(), backend::no_slot);
  std::iota(tokens.begin(), tokens.end(), 3);
  std::iota(pages.begin(), pages.end(), 0);
  backend->reserve({page_count, 1, static_cast<int32_t>(tokens.size())});
  std::vector<float> logits(tokens.size() * static_cast<size_t>(model.config.vocabulary_size));
  backend::SequenceStep step;
  step.tokens = tokens;
  step.pages = pages;
  step.state_out = state_out;
  step.logits = logits.data();
  backend->step({{step}});
  return logits;
}

TEST(CudaBackend, KeysAndValuesInBf16StayNear) {
  const TestModel model(testing::tiny_shakespeare);
  const std::vector<float> exact = logits_with(model, DType::f32);
  const std::vector<float> rounded = logits_with(model, DType::bf16);
  double error = 0, norm = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(double{exact[i]} - rounded[i], 2);
    norm += std::pow(double{exact[i]}, 2);
  }
  // A bf16 value is off by up to 2^-9 of itself.
  EXPECT_GT(error, 0);
  EXPECT_LT(std::sqrt(error / norm), 0x1p-7);
}

TEST(CudaBackend, LackOfMemoryNamesTheNeedAndTheOption) {
  const TestModel model(testing::tiny_shakespeare);
  const auto backend = model.backend(1);
  const auto complaint = [&](const backend::Reservation& reservation) -> std::string {
    try {
      backend->reserve(reservation);
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  };
  using ::testing::AllOf;
  using ::testing::HasSubstr;
  constexpr int32_t many = 1 << 30;
  EXPECT_THAT(complaint({many, 1, 1}), AllOf(HasSubstr("GiB free"), HasSubstr("--context")));
  EXPECT_THAT(complaint({1, many, 1}), AllOf(HasSubstr("GiB free"), HasSubstr("fewer sequences")));
  EXPECT_THAT(complaint({1, 1, many}), AllOf(HasSubstr("GiB free"), HasSubstr("--prefill-chunk")));
  EXPECT_EQ(complaint({1, 1, 1}), "none");
}

}  // namespace
}  // namespace qnext
