#include "app/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <utility>

#include "app/bench_report.h"
#include "base/error.h"
#include "base/json.h"
#include "engine/testing/fake_backend.h"

namespace qnext::app {
namespace {

using engine::testing::FakeBackend;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Steps that each move a byte a row, and can be profiled.
class ProfiledBackend : public FakeBackend {
 public:
  using FakeBackend::FakeBackend;

  std::vector<backend::SequenceResult> step(const backend::Batch& batch) override {
    for (const backend::SequenceStep& sequence : batch.sequences)
      traffic_.weights += sequence.tokens.size();
    ++steps_profiled_;
    return FakeBackend::step(batch);
  }
  const backend::Traffic& traffic() const override { return traffic_; }
  double measure_read_bandwidth() override {
    measured_after.push_back(steps.size());
    return 1;
  }
  bool start_profile() override {
    steps_profiled_ = 0;
    return true;
  }
  std::vector<backend::StageTime> take_profile() override {
    const auto count = static_cast<double>(steps_profiled_);
    return {{"mixer", 3e-6 * count, 2 * steps_profiled_}, {"head", 1e-6 * count, steps_profiled_}};
  }

  std::vector<size_t> measured_after;  // so many steps

 private:
  backend::Traffic traffic_;
  int64_t steps_profiled_ = 0;
};

BenchOptions once(std::vector<BenchPoint> points) {
  BenchOptions options;
  options.points = std::move(points);
  options.repeat = 1;
  return options;
}

TEST(Bench, DecodingIsCountedOnceAllSequencesDecode) {
  ProfiledBackend backend({.context = 1000});
  BenchOptions options = once({{.batch = 3, .context = 20, .generate = 10}});
  options.answer.prefill_chunk = 16;
  options.repeat = 2;
  const BenchReport report = measure(backend, options);
  ASSERT_EQ(report.lines.size(), 1u);
  const BenchLine& line = report.lines[0];
  EXPECT_EQ(line.repeats.size(), 2u);
  EXPECT_EQ(line.point.context, 20);
  EXPECT_FALSE(line.shortened);
  // A prompt row beside the decoding ones would have moved bytes too.
  EXPECT_EQ(line.median(&Measurement::bytes_per_token), 1);
  EXPECT_EQ(line.median(&Measurement::tokens_per_step), 1);
  EXPECT_GT(line.median(&Measurement::prefill), 0);
  EXPECT_GT(line.median(&Measurement::decode), 0);
  EXPECT_GT(line.median(&Measurement::share), 0);
  // The last repetition's, before, between and behind its slices.
  ASSERT_EQ(backend.measured_after.size(), 2u * 9);
  EXPECT_THAT(std::span(backend.measured_after).last(9),
              ElementsAre(32, 33, 35, 36, 37, 38, 40, 41, 42));
  for (const Measurement& one : line.repeats) EXPECT_LE(one.first_token, 60 / one.prefill);
  // Each repetition: four steps of prompts, ten in which all decode.
  ASSERT_EQ(backend.steps.size(), 3u * 14);
  EXPECT_EQ(backend.steps.back().size(), 3u);
}

TEST(Bench, DraftsPassAsForced) {
  for (int32_t accepted = 0; accepted <= 3; ++accepted) {
    FakeBackend backend({.context = 1000, .acceptance = 0.5});
    BenchOptions options = once({{.batch = 2, .context = 20, .generate = 30}});
    options.answer.speculate = 3;
    options.force_acceptance = accepted;
    const BenchReport report = measure(backend, options);
    EXPECT_EQ(report.lines[0].median(&Measurement::tokens_per_step), 1 + accepted);
  }
}

TEST(Bench, AContextIsShortenedToLeaveRoomForTheAnswer) {
  FakeBackend backend({.context = 100});
  const BenchReport report = measure(backend, once({{.batch = 1, .context = 100, .generate = 10}}));
  EXPECT_EQ(report.lines[0].point.context, 88);
  EXPECT_TRUE(report.lines[0].shortened);
  EXPECT_THROW(measure(backend, once({{.batch = 1, .context = 100, .generate = 100}})), Error);
}

TEST(Bench, TheProfileIsOfPrefillAndDecode) {
  ProfiledBackend backend({.context = 1000});
  BenchOptions options = once({{.context = 20, .generate = 0}, {.context = 20, .generate = 64}});
  options.answer.prefill_chunk = 10;
  options.profile = true;
  const BenchReport report = measure(backend, options);
  ASSERT_EQ(report.lines.size(), 2u);
  EXPECT_EQ(report.lines[0].profile.size(), 1u);
  ASSERT_EQ(report.lines[1].profile.size(), 2u);
  EXPECT_EQ(report.lines[1].profile[0].steps, 2);
  EXPECT_EQ(report.lines[1].profile[1].steps, 64);

  BenchSetting setting;
  setting.capabilities = backend.capabilities();
  setting.profile = true;
  const std::string text = bench_text(setting, report);
  EXPECT_THAT(text, HasSubstr("decode of 1 x 20 tokens: 64 steps, 4.0 microseconds each"));
  EXPECT_THAT(text, HasSubstr("75.0 %"));
  EXPECT_THAT(text, Not(HasSubstr("no profile")));
  const json::Value value = json::parse(bench_json(setting, report), "report");
  const json::Array& lines = value.find("measurements")->as_array();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].find("what")->as_string(), "prefill");
  EXPECT_EQ(*lines[0].find("decode_tokens_per_second"), json::Value());
  EXPECT_EQ(lines[1].find("profile")->as_array()[1].find("stages")->as_array().size(), 2u);
}

TEST(Bench, SaysWhereThereIsNoProfile) {
  FakeBackend backend({.context = 1000});
  BenchOptions options = once({{.context = 20, .generate = 1}});
  options.profile = true;
  BenchSetting setting;
  setting.profile = true;
  EXPECT_THAT(bench_text(setting, measure(backend, options)), HasSubstr("no profile"));
}

}  // namespace
}  // namespace qnext::app
