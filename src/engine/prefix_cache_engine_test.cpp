// What requests get from those before them, and that it changes no answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <thread>
#include <vector>

#include "base/file.h"
#include "checkpoint/temporary_folder.h"
#include "engine/collector.h"
#include "engine/engine.h"
#include "engine/testing/fake_backend.h"
#include "engine/testing/reference_answer.h"

namespace qnext::engine {
namespace {

using testing::FakeBackend;
using Tokens = std::vector<int32_t>;

constexpr int64_t page = 4;

Tokens counted(int32_t first, int32_t count) {
  Tokens tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

Tokens joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class PrefixCacheEngineTest : public ::testing::Test {
 protected:
  void start(EngineOptions options) {
    if (options.cache_bytes == 0) options.cache_bytes = 1 << 20;
    backend_.emplace(testing::FakeOptions{.vocabulary = 1000,
                                          .page_tokens = page,
                                          .context = 400,
                                          .answers_like_prompts = answers_like_prompts_});
    engine_.emplace(*backend_, nullptr, options);
  }

  // Another process, as far as anybody can tell.
  void restart(const EngineOptions& options) {
    engine_.reset();
    start(options);
  }

  // The request with its answer, which is the one that it would have alone and with nothing cached.
  Tokens ask(const Tokens& prompt, int64_t answer, int32_t speculate = 0) {
    GenerationRequest request;
    request.prompt = prompt;
    request.max_tokens = answer;
    request.speculate = speculate;
    Collector collector;
    engine_->submit(request, collector);
    engine_->run();
    check(request, collector);
    return all_tokens(request, collector);
  }

  static Tokens all_tokens(const GenerationRequest& request, const Collector& collector) {
    Tokens tokens = request.prompt;
    for (const ops::SampledToken& token : collector.tokens) tokens.push_back(token.token);
    return tokens;
  }

  void check(const GenerationRequest& request, const Collector& collector) {
    const testing::ReferenceAnswer expected = testing::reference_answer(
        request, {.vocabulary = 1000, .context = 400, .eos_tokens = {}, .tokenizer = nullptr});
    EXPECT_EQ(all_tokens(request, collector), joined(request.prompt, expected.tokens));
    ASSERT_TRUE(collector.finish);
    last_ = collector.finish->counts;
  }

  int64_t computed_rows() const { return last_.prompt_tokens - last_.cached_tokens; }

  bool answers_like_prompts_ = true;
  std::optional<FakeBackend> backend_;
  std::optional<Engine> engine_;
  GenerationCounts last_;
};

TEST_F(PrefixCacheEngineTest, EachTurnOfAConversationComputesItsNewTokensOnly) {
  for (const int32_t speculate : {0, 3}) {
    SCOPED_TRACE(speculate);
    start({.max_speculation = 3});
    Tokens conversation = counted(0, 30);
    for (int turn = 0; turn < 20; ++turn) {
      const auto before = std::ssize(conversation);
      conversation = ask(conversation, 7, speculate);
      if (turn > 0) {
        EXPECT_LE(computed_rows(), 5 + page) << "turn " << turn << " of " << before << " tokens";
      }
      conversation = joined(conversation, counted(40 * turn, 5));
    }
  }
}

// A short answer does not reach the end of a page, so the prompt's own last state must serve.
TEST_F(PrefixCacheEngineTest, APromptThatEndsWithAPageServesTheNextTurnAndTheSameAgain) {
  for (const bool like_prompts : {true, false}) {
    answers_like_prompts_ = like_prompts;
    for (const int32_t speculate : {0, 3}) {
      start({.max_speculation = 3, .adapt_speculation = false});
      const Tokens first = ask(counted(0, 32), 2, speculate);
      ask(joined(first, {1, 2, 3}), 9, speculate);
      EXPECT_EQ(last_.cached_tokens, 32);
      EXPECT_EQ(last_.drafted_tokens > 0, speculate > 0) << "the head is in step";
      ask(counted(0, 32), 2, speculate);
      EXPECT_EQ(last_.cached_tokens, 28);
    }
  }
}

// The second prompt shares the instructions and no more, the third all but the last message.
TEST_F(PrefixCacheEngineTest, StatesAreKeptWhereMessagesEnd) {
  start({.prefill_chunk = 64});
  const Tokens instructions = counted(0, 42);
  GenerationRequest request;
  request.prompt = joined(instructions, counted(100, 60));
  request.max_tokens = 3;
  request.boundaries = {42, 50, 70, 90, 102};
  Collector collector;
  engine_->submit(request, collector);
  engine_->run();
  check(request, collector);

  ask(joined(instructions, counted(300, 20)), 3);
  EXPECT_EQ(last_.cached_tokens, 40);
  Tokens again(request.prompt.begin(), request.prompt.begin() + 91);
  ask(joined(again, counted(500, 10)), 3);
  EXPECT_EQ(last_.cached_tokens, 88);
  Tokens earlier(request.prompt.begin(), request.prompt.begin() + 71);
  ask(joined(earlier, counted(600, 10)), 3);
  EXPECT_EQ(last_.cached_tokens, 40) << "not every message is worth a state";
}

TEST_F(PrefixCacheEngineTest, TheHeadStaysInStepBehindACachedPrefix) {
  start({.max_speculation = 3, .adapt_speculation = false});
  const Tokens first = ask(counted(0, 30), 20, 3);
  ask(joined(first, {1, 2, 3}), 20, 3);
  EXPECT_GT(last_.cached_tokens, 40);
  EXPECT_GT(last_.accepted_tokens, 0);
}

TEST_F(PrefixCacheEngineTest, WithoutTheHeadsEntriesThereAreNoDrafts) {
  start({.max_speculation = 3, .adapt_speculation = false});
  const Tokens first = ask(counted(0, 30), 20);
  ask(joined(first, {1, 2, 3}), 20, 3);
  EXPECT_GT(last_.cached_tokens, 40);
  EXPECT_EQ(last_.drafted_tokens, 0);
}

TEST_F(PrefixCacheEngineTest, TheSameAgainComputesItsLastPage) {
  start({});
  ask(counted(0, 32), 5);
  ask(counted(0, 32), 5);
  EXPECT_EQ(last_.cached_tokens, 28);
  ask(counted(0, 33), 5);
  EXPECT_EQ(last_.cached_tokens, 32);
  ask(counted(0, 34), 5);
  EXPECT_EQ(last_.cached_tokens, 32);
}

TEST_F(PrefixCacheEngineTest, WhatTwoPromptsShareIsThereForTheThird) {
  start({});
  const Tokens system = counted(0, 42);
  ask(joined(system, counted(100, 30)), 3);
  EXPECT_EQ(last_.cached_tokens, 0);
  ask(joined(system, counted(200, 30)), 3);
  EXPECT_EQ(last_.cached_tokens, 0);  // no state from there; one is taken now
  ask(joined(system, counted(300, 30)), 3);
  EXPECT_EQ(last_.cached_tokens, 40);
}

TEST_F(PrefixCacheEngineTest, SnapshotsDoNotCutAChunk) {
  start({.prefill_chunk = 200});
  ask(counted(0, 100), 3);
  EXPECT_EQ(last_.prefill_steps, 1);
  ask(joined(counted(0, 50), counted(200, 50)), 3);
  EXPECT_EQ(last_.prefill_steps, 1);
}

TEST_F(PrefixCacheEngineTest, ManyAtOnceShareWhatIsThere) {
  start({.max_sequences = 8});
  const Tokens system = counted(0, 40);
  ask(joined(system, {900}), 3);
  std::vector<GenerationRequest> requests(20);
  std::vector<Collector> collectors(20);
  for (size_t i = 0; i < 20; ++i) {
    requests[i].prompt = joined(system, counted(static_cast<int32_t>(i) * 10 + 100, 9));
    requests[i].max_tokens = 12;
    engine_->submit(requests[i], collectors[i]);
  }
  engine_->run();
  for (size_t i = 0; i < 20; ++i) {
    check(requests[i], collectors[i]);
    EXPECT_EQ(last_.cached_tokens, 40);
  }
}

TEST_F(PrefixCacheEngineTest, AnswersOfAnotherFormAreComputedAgain) {
  answers_like_prompts_ = false;
  start({});
  const Tokens first = ask(counted(0, 30), 40);
  ask(joined(first, {1, 2, 3}), 5);
  EXPECT_EQ(last_.cached_tokens, 28);
}

TEST_F(PrefixCacheEngineTest, ACancelledAnswerIsOfUseToo) {
  start({});
  GenerationRequest request{.prompt = counted(0, 30), .max_tokens = 100};
  Collector collector;
  const RequestId id = engine_->submit(request, collector);
  for (int i = 0; i < 30; ++i) engine_->step();
  engine_->cancel(id);
  EXPECT_EQ(engine_->load().running, 0);
  ask(joined(all_tokens(request, collector), {1}), 5);
  EXPECT_GT(last_.cached_tokens, 50);
}

TEST_F(PrefixCacheEngineTest, TheCacheMakesRoomForRequests) {
  // Pages for one full context; each of these fills more than half of it.
  start({.max_context = 200, .pages = 50});
  for (int32_t i = 0; i < 10; ++i) {
    ask(counted(i * 50, 120), 20);
    EXPECT_LE(engine_->load().cached_pages, 50);
    EXPECT_EQ(engine_->load().free_pages + engine_->load().cached_pages, 50);
  }
}

TEST_F(PrefixCacheEngineTest, StaysWithinItsBudget) {
  start({.cache_bytes = 3000});
  for (int32_t i = 0; i < 40; ++i) {
    ask(counted(i * 20, 60), 20);
    EXPECT_LE(engine_->load().cached_bytes, 3000u);
    EXPECT_GT(engine_->load().cached_bytes, 0u);
  }
}

TEST_F(PrefixCacheEngineTest, AConversationGoesOnAfterARestart) {
  const TemporaryFolder folder;
  for (const int32_t speculate : {0, 3}) {
    SCOPED_TRACE(speculate);
    const EngineOptions options{.max_speculation = 3,
                                .adapt_speculation = false,
                                .cache_folder = folder.path(),
                                .cache_fingerprint = static_cast<uint64_t>(speculate)};
    start(options);
    Tokens conversation = counted(0, 30);
    for (int turn = 0; turn < 8; ++turn) {
      conversation = ask(conversation, 9, speculate);
      if (turn > 0) {
        EXPECT_LE(computed_rows(), 5 + page) << "turn " << turn;
      }
      EXPECT_EQ(last_.drafted_tokens > 0, speculate > 0);
      conversation = joined(conversation, counted(40 * turn, 5));
      if (turn % 2 == 1) restart(options);
    }
  }
}

TEST_F(PrefixCacheEngineTest, WhatLeavesMemoryComesBack) {
  const TemporaryFolder folder;
  // Room for one prompt of these.
  const EngineOptions options{.cache_bytes = 1700, .cache_folder = folder.path()};
  start(options);
  for (int round = 0; round < 2; ++round) {
    for (int32_t i = 0; i < 10; ++i) {
      ask(counted(i * 30, 80), 3);
      EXPECT_EQ(last_.cached_tokens, round == 0 ? 0 : 76) << i;
      EXPECT_LE(engine_->load().cached_bytes, 1700u);
    }
    restart(options);  // all that waited has been written
  }
}

TEST_F(PrefixCacheEngineTest, LeisureIsForSaving) {
  const TemporaryFolder folder;
  start({.cache_folder = folder.path()});
  EXPECT_FALSE(engine_->save_some());
  ask(counted(0, 77), 3);
  ask(joined(counted(0, 40), counted(200, 17)), 3);  // two snapshots more
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(engine_->save_some());
  EXPECT_FALSE(engine_->save_some());
  const auto files = [&] {
    int count = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path()))
      count += entry.path().extension() == ".prefix";
    return count;
  };
  while (files() < 3) std::this_thread::yield();
}

TEST_F(PrefixCacheEngineTest, ADamagedFileCostsTimeOnly) {
  const TemporaryFolder folder;
  const EngineOptions options{.cache_folder = folder.path()};
  start(options);
  ask(counted(0, 80), 3);
  engine_.reset();
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path())) {
    if (!entry.is_regular_file()) continue;
    std::string bytes = read_file(entry.path().string());
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    write_file(entry.path().string(), bytes);
  }
  start(options);
  ask(counted(0, 80), 3);
  EXPECT_EQ(last_.cached_tokens, 0);
  ask(counted(0, 80), 3);
  EXPECT_EQ(last_.cached_tokens, 76);
}

TEST_F(PrefixCacheEngineTest, AFailedRequestLeavesItsPromptOnly) {
  start({});
  backend_->options.fails = [](std::span<const int32_t> history) { return history.size() > 60; };
  GenerationRequest request{.prompt = counted(0, 30), .max_tokens = 100};
  Collector collector;
  engine_->submit(request, collector);
  engine_->run();
  EXPECT_EQ(collector.finish->reason, FinishReason::error);
  backend_->options.fails = nullptr;
  ask(joined(all_tokens(request, collector), {1}), 5);
  EXPECT_EQ(last_.cached_tokens, 28);
}

}  // namespace
}  // namespace qnext::engine
