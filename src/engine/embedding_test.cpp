// Embeddings of prompts, among answers and alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "engine/collector.h"
#include "engine/engine.h"
#include "engine/prompt_mean.h"
#include "engine/testing/fake_backend.h"

namespace qnext::engine {
namespace {

using testing::FakeBackend;

std::vector<int32_t> prompt_of(int32_t length, int32_t first) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < length; ++i) prompt.push_back((first + 7 * i) % 50);
  return prompt;
}

GenerationRequest embedding_of(std::vector<int32_t> prompt) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.embed = true;
  return request;
}

std::vector<float> expected(const std::vector<int32_t>& prompt, int64_t width) {
  std::vector<double> sums(static_cast<size_t>(width));
  uint64_t history = 0;
  for (const int32_t token : prompt) {
    history = testing::extend_history(history, token);
    for (int64_t i = 0; i < width; ++i)
      sums[static_cast<size_t>(i)] += testing::hidden_value(history, i);
  }
  std::vector<float> mean;
  for (const double sum : sums)
    mean.push_back(static_cast<float>(sum / static_cast<double>(prompt.size())));
  return mean;
}

TEST(Embeddings, AreTheMeanHoweverThePromptIsCutAndWhoeverElseRuns) {
  for (const int32_t chunk : {1, 5, 64}) {
    FakeBackend backend({});
    Engine engine(backend, nullptr, {.max_sequences = 3, .prefill_chunk = chunk});
    std::vector<std::vector<int32_t>> prompts;
    std::vector<Collector> embeddings(6);
    std::vector<Collector> answers(6);
    for (int32_t i = 0; i < 6; ++i) {
      prompts.push_back(prompt_of(1 + 13 * i, i));
      const auto at = static_cast<size_t>(i);
      engine.submit(embedding_of(prompts.back()), embeddings[at]);
      GenerationRequest answer;
      answer.prompt = prompts.back();
      answer.max_tokens = 5;
      engine.submit(answer, answers[at]);
    }
    engine.run();
    for (size_t i = 0; i < 6; ++i) {
      const Finish& finish = *embeddings[i].finish;
      EXPECT_EQ(finish.reason, FinishReason::embedded) << finish.error;
      EXPECT_EQ(finish.embedding, expected(prompts[i], backend.config().hidden_size));
      EXPECT_EQ(finish.counts.prompt_tokens, std::ssize(prompts[i]));
      EXPECT_EQ(finish.counts.generated_tokens, 0);
      EXPECT_TRUE(embeddings[i].tokens.empty());
      EXPECT_EQ(answers[i].tokens.size(), 5u);
      EXPECT_TRUE(answers[i].finish->embedding.empty());
    }
    EXPECT_EQ(engine.load().free_pages, engine.options().pages);
    EXPECT_EQ(engine.load().free_slots, engine.options().slots);
  }
}

TEST(Embeddings, MayHaveToPause) {
  for (const size_t swap_bytes : {size_t{0}, size_t{1} << 20}) {
    FakeBackend backend({.page_tokens = 5, .context = 100});
    Engine engine(backend, nullptr,
                  {.max_sequences = 2,
                   .prefill_chunk = 1,
                   .pages = 20,
                   .likely_answer = 0,
                   .swap_bytes = swap_bytes});
    Collector answer, embedding;
    engine.submit({.prompt = {1}, .max_tokens = 90}, answer);
    engine.submit(embedding_of(prompt_of(70, 3)), embedding);
    engine.run();
    EXPECT_EQ(answer.tokens.size(), 90u);
    EXPECT_GT(embedding.finish->counts.pauses, 0);
    EXPECT_EQ(embedding.finish->embedding,
              expected(prompt_of(70, 3), backend.config().hidden_size));
  }
}

// Which knows states, but no hidden rows.
TEST(Embeddings, DoNotGoOnFromTheCache) {
  FakeBackend backend({});
  Engine engine(backend, nullptr, {.cache_bytes = 1 << 20});
  const std::vector<int32_t> prompt = prompt_of(40, 3);
  Collector answer, first, second;
  GenerationRequest request;
  request.prompt = prompt;
  request.max_tokens = 5;
  engine.submit(request, answer);
  engine.run();
  EXPECT_GT(engine.load().cached_pages, 0);
  for (Collector* one : {&first, &second}) {
    engine.submit(embedding_of(prompt), *one);
    engine.run();
    EXPECT_EQ(one->finish->embedding, expected(prompt, backend.config().hidden_size));
    EXPECT_EQ(one->finish->counts.cached_tokens, 0);
  }
}

TEST(Embeddings, NeedNoRoomForAnAnswer) {
  FakeBackend backend({.context = 40});
  Engine engine(backend, nullptr, {});
  Collector whole;
  engine.submit(embedding_of(prompt_of(40, 0)), whole);
  engine.run();
  EXPECT_EQ(whole.finish->reason, FinishReason::embedded);
  EXPECT_THROW(engine.check(embedding_of(prompt_of(41, 0))), Error);
}

TEST(Embeddings, EndWithTheirFailure) {
  FakeBackend backend({.fails = [](std::span<const int32_t>) { return true; }});
  Engine engine(backend, nullptr, {});
  Collector failed;
  engine.submit(embedding_of(prompt_of(9, 0)), failed);
  engine.run();
  EXPECT_EQ(failed.finish->reason, FinishReason::error);
  EXPECT_TRUE(failed.finish->embedding.empty());
}

TEST(PromptMean, RefusesWhatIsNotANumber) {
  PromptMean mean(2);
  float* states = mean.begin(1);
  states[0] = 1;
  states[1] = std::numeric_limits<float>::quiet_NaN();
  mean.add();
  EXPECT_THROW(mean.mean(), Error);
}

}  // namespace
}  // namespace qnext::engine
