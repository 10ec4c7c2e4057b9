#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/collector.h"
#include "engine/testing/fake_backend.h"
#include "engine/testing/reference_answer.h"

namespace qnext::engine {
namespace {

using ::testing::ElementsAre;
using testing::FakeBackend;
using testing::FakeOptions;
using ::testing::HasSubstr;

std::vector<int32_t> ids(const std::vector<ops::SampledToken>& tokens) {
  std::vector<int32_t> result;
  for (const ops::SampledToken& token : tokens) result.push_back(token.token);
  return result;
}

std::vector<int32_t> reference(const GenerationRequest& request, const FakeBackend& backend) {
  const std::vector<int64_t>& eos = backend.config().eos_token_ids;
  return testing::reference_answer(request,
                                   {.vocabulary = backend.options.vocabulary,
                                    .context = backend.options.context,
                                    .eos_tokens = std::vector<int32_t>(eos.begin(), eos.end()),
                                    .tokenizer = nullptr})
      .tokens;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

GenerationRequest request_of(std::vector<int32_t> prompt, std::optional<int64_t> max_tokens = {}) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

void expect_all_free(const Engine& engine) {
  const EngineLoad load = engine.load();
  EXPECT_EQ(load.waiting, 0);
  EXPECT_EQ(load.running, 0);
  EXPECT_EQ(load.free_pages, engine.options().pages);
  EXPECT_EQ(load.free_slots, engine.options().slots);
}

TEST(EnginePlan, FillsInWhatIsLeftOpen) {
  FakeBackend backend({.page_tokens = 16, .context = 1000, .eos_token_ids = {7, 9}});
  const EnginePlan plan = plan_engine(
      backend.config(), backend.capabilities(),
      {.max_sequences = 3, .prefill_chunk = 64, .max_speculation = 2, .adapt_speculation = false});
  EXPECT_EQ(plan.options.max_context, 1000);
  EXPECT_EQ(plan.reservation.pages, 3 * 63);
  EXPECT_EQ(plan.reservation.slots, 9);
  EXPECT_EQ(plan.reservation.rows, 64 + 2 * 3);
  EXPECT_THAT(*plan.options.stop_tokens, ElementsAre(7, 9));
  EXPECT_EQ(plan_engine(backend.config(), backend.capabilities(), {}).options.prefill_chunk,
            backend.capabilities().prefill_chunk);
}

TEST(EnginePlan, ReservesNoMoreRowsThanPromptsCanFill) {
  FakeBackend backend({.page_tokens = 16, .context = 1000});
  const EnginePlan plan =
      plan_engine(backend.config(), backend.capabilities(),
                  {.max_context = 100, .max_sequences = 2, .prefill_chunk = 8192});
  EXPECT_EQ(plan.options.prefill_chunk, 8192);
  EXPECT_EQ(plan.reservation.rows, 2 * 100 + 1);
}

TEST(EnginePlan, TheContextIsNoLongerThanAllPages) {
  FakeBackend backend({.page_tokens = 16, .context = 1000});
  EXPECT_EQ(plan_engine(backend.config(), backend.capabilities(), {.pages = 5}).options.max_context,
            80);
}

TEST(EnginePlan, SaysWhatCannotWork) {
  FakeBackend backend({.context = 1000, .has_mtp = false});
  const auto message = [&](const EngineOptions& options) {
    return message_of([&] { plan_engine(backend.config(), backend.capabilities(), options); });
  };
  EXPECT_THAT(message({.max_context = 2000}), HasSubstr("2000"));
  EXPECT_THAT(message({.max_context = 1}), HasSubstr("context of 1"));
  EXPECT_THAT(message({.max_sequences = 0}), HasSubstr("max_sequences is 0"));
  EXPECT_THAT(message({.max_sequences = 2'000'000'000}), HasSubstr("KV pages"));
  EXPECT_THAT(message({.prefill_chunk = -1}), HasSubstr("prefill_chunk is -1"));
  EXPECT_THAT(message({.max_speculation = -1}), HasSubstr("max_speculation is -1"));
  EXPECT_THAT(message({.max_speculation = 1, .adapt_speculation = false}),
              HasSubstr("no MTP head"));
  EXPECT_THAT(message({.pages = -1}), HasSubstr("pages is -1"));
  FakeBackend with_mtp({.context = 1000});
  EXPECT_THAT(message_of([&] {
                plan_engine(with_mtp.config(), with_mtp.capabilities(),
                            {.max_speculation = 3, .slots = 3});
              }),
              HasSubstr("3 state slots are too few"));
}

TEST(Engine, AnswersAsTheModelAlone) {
  FakeBackend backend({});
  Engine engine(backend, nullptr);
  const GenerationRequest request = request_of({1, 2, 3}, 20);
  Collector answer;
  engine.submit(request, answer);
  engine.run();
  EXPECT_EQ(ids(answer.tokens), reference(request, backend));
  ASSERT_TRUE(answer.finish);
  EXPECT_EQ(answer.finish->reason, FinishReason::length);
  EXPECT_EQ(answer.finish->counts.prompt_tokens, 3);
  EXPECT_EQ(answer.finish->counts.generated_tokens, 20);
  EXPECT_EQ(answer.finish->counts.prefill_steps, 1);
  EXPECT_EQ(answer.finish->counts.decode_steps, 19);
  EXPECT_DOUBLE_EQ(answer.finish->counts.tokens_per_step(), 1);
  expect_all_free(engine);
}

TEST(Engine, ThePromptIsCutIntoChunks) {
  FakeBackend backend({});
  Engine engine(backend, nullptr, {.prefill_chunk = 4});
  const GenerationRequest request = request_of({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 3);
  Collector answer;
  engine.submit(request, answer);
  engine.run();
  EXPECT_EQ(ids(answer.tokens), reference(request, backend));
  EXPECT_EQ(answer.finish->counts.prefill_steps, 3);
  ASSERT_EQ(backend.steps.size(), 5u);
  EXPECT_EQ(backend.steps[2][0].first_position, 8);
  EXPECT_EQ(backend.steps[2][0].rows, 2);
}

TEST(Engine, StepsAfterTheFirstTokenContinueAnAnswer) {
  FakeBackend backend({.acceptance = 1});
  Engine engine(backend, nullptr,
                {.prefill_chunk = 4, .max_speculation = 2, .adapt_speculation = false});
  GenerationRequest request = request_of({1, 2, 3, 4, 5, 6}, 6);
  request.speculate = 2;
  Collector answer;
  engine.submit(request, answer);
  engine.run();
  std::vector<bool> answers;
  for (const auto& step : backend.steps) answers.push_back(step[0].answer);
  EXPECT_THAT(answers, ElementsAre(false, false, true, true));
  EXPECT_TRUE(backend.steps[1][0].draw);
}

TEST(Engine, RightDraftsSaveSteps) {
  FakeBackend backend({.acceptance = 1});
  Engine engine(backend, nullptr, {.max_speculation = 3, .adapt_speculation = false});
  GenerationRequest request = request_of({1, 2, 3}, 21);
  request.speculate = 3;
  Collector answer;
  engine.submit(request, answer);
  engine.run();
  EXPECT_EQ(ids(answer.tokens), reference(request, backend));
  const GenerationCounts& counts = answer.finish->counts;
  EXPECT_EQ(counts.decode_steps, 5);  // four tokens a step
  EXPECT_EQ(counts.drafted_tokens, 15);
  EXPECT_EQ(counts.accepted_tokens, 15);
  EXPECT_DOUBLE_EQ(counts.tokens_per_step(), 4);
}

TEST(Engine, WrongDraftsCostNoTokens) {
  FakeBackend backend({.acceptance = 0});
  Engine engine(backend, nullptr, {.max_speculation = 2, .adapt_speculation = false});
  GenerationRequest request = request_of({1, 2, 3}, 10);
  request.speculate = 2;
  Collector answer;
  engine.submit(request, answer);
  engine.run();
  EXPECT_EQ(ids(answer.tokens), reference(request, backend));
  EXPECT_EQ(answer.finish->counts.decode_steps, 9);
  EXPECT_EQ(answer.finish->counts.accepted_tokens, 0);
  EXPECT_GT(answer.finish->counts.drafted_tokens, 0);
}

TEST(Engine, EveryStepVerifiesFreshDrafts) {
  FakeBackend backend({.vocabulary = 10'000, .context = 1000, .acceptance = 0.5});
  Engine engine(backend, nullptr, {.max_speculation = 1, .adapt_speculation = false});
  GenerationRequest request = request_of({1, 2, 3});
  request.speculate = 1;
  Collector answer;
  engine.submit(request, answer);
  engine.run();
  EXPECT_EQ(ids(answer.tokens), reference(request, backend));
  const GenerationCounts& counts = answer.finish->counts;
  // Half of about 660 drafts are right: 0.5 within four standard deviations of 0.02.
  EXPECT_NEAR(
      static_cast<double>(counts.accepted_tokens) / static_cast<double>(counts.drafted_tokens), 0.5,
      0.08);
  EXPECT_NEAR(counts.tokens_per_step(), 1.5, 0.08);
}

TEST(Engine, StopsInsideAnAcceptedRun) {
  FakeBackend backend({.acceptance = 1});
  Engine engine(backend, nullptr, {.max_speculation = 4, .adapt_speculation = false});
  GenerationRequest request = request_of({1, 2, 3}, 30);
  const std::vector<int32_t> plain = reference(request, backend);
  // A stop on the fourth token of the answer: the third of the first verified run.
  ASSERT_EQ(std::count(plain.begin(), plain.begin() + 4, plain[3]), 1);
  request.stop_tokens = {plain[3]};
  request.speculate = 4;
  Collector answer;
  engine.submit(request, answer);
  engine.run();
  EXPECT_EQ(ids(answer.tokens), std::vector<int32_t>(plain.begin(), plain.begin() + 4));
  EXPECT_EQ(answer.finish->reason, FinishReason::stop_token);
  EXPECT_EQ(answer.finish->counts.generated_tokens, 4);
  EXPECT_EQ(answer.finish->counts.decode_steps, 1);
  EXPECT_EQ(answer.finish->counts.drafted_tokens, 4);
  EXPECT_EQ(answer.finish->counts.accepted_tokens, 3);
  expect_all_free(engine);
}

TEST(Engine, EndsWithTheContext) {
  for (int32_t speculate = 0; speculate <= 5; ++speculate) {
    FakeBackend backend({.context = 23, .acceptance = 0.8});
    Engine engine(backend, nullptr, {.max_speculation = 5, .adapt_speculation = false});
    GenerationRequest request = request_of({1, 2, 3});
    request.speculate = speculate;
    Collector answer;
    engine.submit(request, answer);
    engine.run();
    EXPECT_EQ(answer.finish->reason, FinishReason::context);
    EXPECT_EQ(answer.finish->counts.generated_tokens, 20);
    EXPECT_EQ(ids(answer.tokens), reference(request, backend));
  }
}

TEST(Engine, EosTokensStopUnlessIgnored) {
  FakeBackend backend({});
  GenerationRequest request = request_of({1, 2, 3}, 30);
  const std::vector<int32_t> plain = reference(request, backend);
  Engine engine(backend, nullptr, {.stop_tokens = std::vector<int32_t>{plain[5]}});
  Collector stopped;
  engine.submit(request, stopped);
  request.ignore_eos = true;
  Collector whole;
  engine.submit(request, whole);
  engine.run();
  EXPECT_EQ(stopped.finish->reason, FinishReason::stop_token);
  EXPECT_EQ(stopped.tokens.back().token, plain[5]);
  EXPECT_EQ(ids(whole.tokens), plain);
}

TEST(Engine, RefusesWhatCanNeverRun) {
  FakeBackend backend({.vocabulary = 50, .context = 100});
  Engine engine(backend, nullptr,
                {.max_context = 40, .max_speculation = 2, .adapt_speculation = false});
  Collector answer;
  const auto message = [&](const GenerationRequest& request) {
    return message_of([&] { engine.submit(request, answer); });
  };
  EXPECT_THAT(message(request_of({})), HasSubstr("prompt is empty"));
  EXPECT_THAT(message(request_of(std::vector<int32_t>(40, 1))),
              ::testing::AllOf(HasSubstr("prompt has 40 tokens"), HasSubstr("context of 40"),
                               HasSubstr("--context")));
  EXPECT_THAT(message(request_of({1, 50})), HasSubstr("token 50"));
  EXPECT_THAT(message(request_of({1, -1})), HasSubstr("token -1"));
  EXPECT_THAT(message(request_of({1}, 0)), HasSubstr("max_tokens is 0"));
  GenerationRequest request = request_of({1});
  request.speculate = 3;
  EXPECT_THAT(message(request), HasSubstr("3 drafts"));
  request.speculate = 0;
  request.stop_strings = {"x"};
  EXPECT_THAT(message(request), HasSubstr("tokenizer"));
  request.stop_strings.clear();
  request.sampling.top_p = 2;
  EXPECT_THAT(message(request), HasSubstr("top_p"));
  EXPECT_FALSE(engine.step());
  EXPECT_FALSE(answer.finish);
  // The longest prompt that leaves room for one token.
  engine.submit(request_of(std::vector<int32_t>(39, 1)), answer);
  engine.run();
  EXPECT_EQ(answer.finish->reason, FinishReason::context);
  EXPECT_EQ(answer.tokens.size(), 1u);
}

TEST(Engine, AFailingSequenceEndsAlone) {
  FakeBackend backend({});
  backend.options.fails = [](std::span<const int32_t> history) {
    return history[0] == 13 && history.size() > 8;
  };
  Engine engine(backend, nullptr, {.max_sequences = 2});
  Collector bad;
  Collector good;
  engine.submit(request_of({13, 1}, 20), bad);
  const GenerationRequest request = request_of({1, 2}, 20);
  engine.submit(request, good);
  engine.run();
  EXPECT_EQ(bad.finish->reason, FinishReason::error);
  EXPECT_EQ(bad.finish->error, "the logits are not numbers");
  EXPECT_EQ(bad.tokens.size(), 7u);
  EXPECT_EQ(ids(good.tokens), reference(request, backend));
  expect_all_free(engine);
}

TEST(Engine, ABatchThatCannotRunFailsItsRequestsAndNoLaterOne) {
  FakeBackend backend({});
  Engine engine(backend, nullptr, {.max_sequences = 2});
  Collector first;
  Collector second;
  Collector third;
  engine.submit(request_of({1}, 5), first);
  engine.submit(request_of({2}, 5), second);
  const GenerationRequest request = request_of({3}, 5);
  engine.submit(request, third);
  backend.throw_next = "out of memory";
  engine.run();
  EXPECT_EQ(first.finish->error, "out of memory");
  EXPECT_EQ(second.finish->error, "out of memory");
  EXPECT_EQ(ids(third.tokens), reference(request, backend));
  expect_all_free(engine);
}

// Calls a function on each event.
class Reacting : public Collector {
 public:
  std::function<void()> token_reaction = [] {};
  std::function<void()> finish_reaction = [] {};
  void on_token(RequestId id, const ops::SampledToken& token) override {
    Collector::on_token(id, token);
    token_reaction();
  }
  void on_finish(RequestId id, const Finish& end) override {
    Collector::on_finish(id, end);
    finish_reaction();
  }
};

TEST(Engine, AListenerThatThrowsEndsItsOwnRequest) {
  FakeBackend backend({});
  Engine engine(backend, nullptr, {.max_sequences = 2});
  Reacting thrower;
  thrower.token_reaction = [&] {
    if (thrower.tokens.size() == 3) throw std::runtime_error("the pipe is closed");
  };
  thrower.finish_reaction = [] { throw std::runtime_error("closed, I said"); };
  Collector other;
  engine.submit(request_of({1}, 10), thrower);
  const GenerationRequest request = request_of({2}, 10);
  engine.submit(request, other);
  engine.run();
  EXPECT_EQ(thrower.finish->reason, FinishReason::error);
  EXPECT_EQ(thrower.finish->error, "the pipe is closed");
  EXPECT_EQ(thrower.tokens.size(), 3u);
  EXPECT_EQ(ids(other.tokens), reference(request, backend));
  expect_all_free(engine);
}

TEST(Engine, CancelsBetweenStepsAtOnce) {
  FakeBackend backend({});
  Engine engine(backend, nullptr, {.max_sequences = 1});
  Collector running;
  Collector waiting;
  const RequestId first = engine.submit(request_of({1}, 50), running);
  const RequestId second = engine.submit(request_of({2}, 50), waiting);
  for (int i = 0; i < 5; ++i) engine.step();
  engine.cancel(second);
  ASSERT_TRUE(waiting.finish);
  EXPECT_EQ(waiting.finish->reason, FinishReason::cancelled);
  EXPECT_EQ(waiting.finish->counts.generated_tokens, 0);
  EXPECT_FALSE(running.finish);
  engine.cancel(first);
  ASSERT_TRUE(running.finish);
  EXPECT_EQ(running.finish->reason, FinishReason::cancelled);
  EXPECT_EQ(running.finish->counts.generated_tokens, 5);
  expect_all_free(engine);
  engine.cancel(first);
  engine.cancel(99);
  EXPECT_FALSE(engine.step());
}

TEST(Engine, ListenersMayCancelAndSubmit) {
  FakeBackend backend({.acceptance = 1});
  Engine engine(backend, nullptr,
                {.max_sequences = 2, .max_speculation = 3, .adapt_speculation = false});
  Reacting self;
  Collector neighbour;
  Collector later;
  const GenerationRequest later_request = request_of({9}, 4);
  GenerationRequest request = request_of({1}, 50);
  request.speculate = 3;
  const RequestId id = engine.submit(request, self);
  const RequestId neighbour_id = engine.submit(request_of({2}, 50), neighbour);
  self.token_reaction = [&] {
    if (self.tokens.size() != 3) return;  // within a verified run
    engine.cancel(neighbour_id);
    engine.cancel(id);
  };
  self.finish_reaction = [&] { engine.submit(later_request, later); };
  engine.run();
  EXPECT_EQ(self.tokens.size(), 3u);
  EXPECT_EQ(self.finish->reason, FinishReason::cancelled);
  EXPECT_EQ(neighbour.finish->reason, FinishReason::cancelled);
  EXPECT_EQ(neighbour.tokens.size(), 1u);  // what the step drew for it was not delivered
  EXPECT_EQ(ids(later.tokens), reference(later_request, backend));
  expect_all_free(engine);
}

TEST(EngineDeathTest, StepsDoNotNest) {
  FakeBackend backend({});
  Engine engine(backend, nullptr);
  Reacting listener;
  listener.token_reaction = [&] { engine.step(); };
  engine.submit(request_of({1}, 2), listener);
  EXPECT_DEATH(engine.run(), "called from a listener");
}

// Three answers that grow to 40 of 50 tokens of memory.
class ShortMemoryTest : public ::testing::Test {
 protected:
  void answer_three(size_t swap_bytes) {
    FakeBackend backend({.vocabulary = 100, .page_tokens = 5, .context = 50});
    Engine engine(backend, nullptr,
                  {.max_sequences = 3, .pages = 10, .likely_answer = 0, .swap_bytes = swap_bytes});
    std::vector<GenerationRequest> requests;
    std::vector<Collector> answers(3);
    for (int32_t i = 0; i < 3; ++i) requests.push_back(request_of({i, 1, 2}, 37));
    for (size_t i = 0; i < 3; ++i) engine.submit(requests[i], answers[i]);
    while (engine.step()) most_swapped_ = std::max(most_swapped_, engine.load().swapped_bytes);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(ids(answers[i].tokens), reference(requests[i], backend));
      EXPECT_EQ(answers[i].finish->reason, FinishReason::length);
      counts_.push_back(answers[i].finish->counts);
    }
    expect_all_free(engine);
  }

  std::vector<GenerationCounts> counts_;
  size_t most_swapped_ = 0;
};

TEST_F(ShortMemoryTest, WhatMakesWayIsNotComputedAgain) {
  answer_three(1 << 20);
  EXPECT_GT(most_swapped_, 0u);
  EXPECT_EQ(counts_[0].pauses, 0);
  EXPECT_GT(counts_[2].pauses, 0);
  for (const GenerationCounts& counts : counts_) EXPECT_EQ(counts.prefill_steps, 1);
}

TEST_F(ShortMemoryTest, WithoutSwapSpaceItIs) {
  answer_three(0);
  EXPECT_EQ(most_swapped_, 0u);
  EXPECT_EQ(counts_[0].pauses, 0);
  EXPECT_GT(counts_[2].pauses, 0);
}

TEST(EngineTest, APausedRequestCanBeCancelled) {
  FakeBackend backend({.vocabulary = 100, .page_tokens = 5, .context = 50});
  Engine engine(backend, nullptr, {.max_sequences = 2, .pages = 10, .likely_answer = 0});
  std::vector<Collector> answers(2);
  engine.submit(request_of({1}, 40), answers[0]);
  const RequestId young = engine.submit(request_of({2}, 40), answers[1]);
  while (engine.load().paused == 0) ASSERT_TRUE(engine.step());
  EXPECT_GT(engine.load().swapped_bytes, 0u);
  engine.cancel(young);
  EXPECT_EQ(answers[1].finish->reason, FinishReason::cancelled);
  EXPECT_EQ(engine.load().swapped_bytes, 0u);
  engine.run();
  EXPECT_EQ(answers[0].tokens.size(), 40u);
  expect_all_free(engine);
}

}  // namespace
}  // namespace qnext::engine
