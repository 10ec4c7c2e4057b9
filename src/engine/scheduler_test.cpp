#include "engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace qnext::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class SchedulerTest : public ::testing::Test {
 protected:
  explicit SchedulerTest(const SchedulerLimits& limits = {.max_sequences = 4,
                                                          .prefill_chunk = 32,
                                                          .page_tokens = 16})
      : scheduler_(limits, pages_, slots_) {}

  Sequence* add(int64_t prompt, int64_t answer, int32_t speculate = 0, std::string user = {}) {
    ++last_id_;
    auto sequence =
        std::make_unique<Sequence>(last_id_, Answer(last_id_, listener_, nullptr, {}, {}));
    sequence->tokens.assign(static_cast<size_t>(prompt), 1);
    sequence->prompt_tokens = sequence->prefill_tokens = prompt;
    sequence->limit = prompt + answer;
    sequence->speculate = speculate;
    sequence->user = std::move(user);
    sequence->speculation.wanted = speculate;
    Sequence* pointer = sequence.get();
    scheduler_.enqueue(std::move(sequence));
    return pointer;
  }

  // "1:20+" : request 1 runs 20 rows and draws.
  std::vector<std::string> plan() {
    planned_ = scheduler_.plan();
    std::vector<std::string> text;
    for (const PlannedStep& step : planned_)
      text.push_back(std::to_string(step.sequence->id) + ":" + std::to_string(step.rows) +
                     (step.draw ? "+" : ""));
    return text;
  }

  // What the engine does after a step in which no draft was accepted.
  void run() {
    for (const PlannedStep& step : planned_) {
      step.sequence->computed += step.rows - step.drafts;
      step.sequence->slots.advance(step.drafts, 0);
      if (step.draw) step.sequence->tokens.push_back(1);
      step.sequence->drafts.assign(static_cast<size_t>(step.propose), 1);
    }
  }

  Listener listener_;
  PageAllocator pages_{20};
  SlotAllocator slots_{6};
  Scheduler scheduler_;
  std::vector<PlannedStep> planned_;
  RequestId last_id_ = 0;
};

TEST_F(SchedulerTest, NothingToDo) {
  EXPECT_THAT(plan(), IsEmpty());
}

TEST_F(SchedulerTest, APromptRunsInChunksAndThenDecodes) {
  add(70, 10);
  EXPECT_THAT(plan(), ElementsAre("1:32"));
  run();
  EXPECT_THAT(plan(), ElementsAre("1:32"));
  run();
  EXPECT_THAT(plan(), ElementsAre("1:6+"));
  run();
  EXPECT_THAT(plan(), ElementsAre("1:1+"));
}

TEST_F(SchedulerTest, ShortPromptsShareAChunk) {
  add(10, 5);
  add(10, 5);
  add(30, 5);
  EXPECT_THAT(plan(), ElementsAre("1:10+", "2:10+", "3:12"));
}

TEST_F(SchedulerTest, DecodingGoesOnBesideALongPrompt) {
  add(10, 5);
  plan();
  run();
  add(100, 5);
  EXPECT_THAT(plan(), ElementsAre("1:1+", "2:32"));
  run();
  EXPECT_THAT(plan(), ElementsAre("1:1+", "2:32"));
}

TEST_F(SchedulerTest, PromptsTakeTurns) {
  add(100, 5);
  plan();
  run();
  add(8, 5);
  add(100, 5);
  // The newcomers follow the first prompt, whose turn comes again after theirs.
  EXPECT_THAT(plan(), ElementsAre("1:32"));
  run();
  EXPECT_THAT(plan(), ElementsAre("2:8+", "3:24"));
  run();
  EXPECT_THAT(plan(), ElementsAre("2:1+", "1:32"));
  run();
  EXPECT_THAT(plan(), ElementsAre("2:1+", "3:32"));
}

TEST_F(SchedulerTest, AdmissionWaitsForLikelyPagesAndKeepsTheOrder) {
  add(100, 92);                    // 12 pages
  Sequence* large = add(100, 60);  // 10 pages: not beside the first
  add(1, 1);                       // would fit, but came later
  EXPECT_THAT(plan(), ElementsAre("1:32"));
  EXPECT_EQ(scheduler_.waiting(), 2);
  EXPECT_THAT(large->pages, IsEmpty());
  scheduler_.remove(1);
  EXPECT_THAT(plan(), ElementsAre("2:32"));
  run();
  EXPECT_EQ(scheduler_.waiting(), 0);
}

TEST_F(SchedulerTest, AdmissionWaitsForSlots) {
  add(1, 9, 3);
  add(1, 9, 2);  // 4 + 3 slots, 6 there are
  EXPECT_THAT(plan(), ElementsAre("1:1+"));
  scheduler_.remove(1);
  EXPECT_THAT(plan(), ElementsAre("2:1+"));
}

TEST_F(SchedulerTest, AdmissionWaitsForAPlace) {
  for (int i = 0; i < 6; ++i) add(1, 5);
  EXPECT_THAT(plan(), ElementsAre("1:1+", "2:1+", "3:1+", "4:1+"));
}

TEST_F(SchedulerTest, UsersTakeTurns) {
  for (int i = 0; i < 5; ++i) add(1, 5, 0, "many");
  add(1, 5, 0, "one");
  add(1, 5, 0, "one");
  EXPECT_THAT(plan(), ElementsAre("1:1+", "6:1+", "2:1+", "7:1+"));
  scheduler_.remove(1);
  scheduler_.remove(2);
  EXPECT_THAT(plan(), ElementsAre("6:1+", "7:1+", "3:1+", "4:1+"));
}

TEST_F(SchedulerTest, PagesAreTakenAsTheSequenceGrows) {
  Sequence* sequence = add(40, 60);
  plan();
  EXPECT_EQ(sequence->pages.size(), 2u);
  EXPECT_EQ(pages_.free(), 18);
  run();
  plan();
  EXPECT_EQ(sequence->pages.size(), 3u);
  scheduler_.remove(1);
  EXPECT_EQ(pages_.free(), 20);
  EXPECT_EQ(slots_.free(), 6);
}

TEST_F(SchedulerTest, DraftsDwindleNearTheLimit) {
  add(4, 5, 4);
  plan();
  EXPECT_EQ(planned_[0].propose, 3);  // of 5 tokens the first comes now, the last needs no draft
  run();
  plan();
  EXPECT_EQ(planned_[0].drafts, 3);
  EXPECT_EQ(planned_[0].propose, 1);  // position 4 + 1 + 3 + 1 is the limit
  run();
  plan();
  EXPECT_EQ(planned_[0].drafts, 1);
  EXPECT_EQ(planned_[0].propose, 1);
  run();
  plan();
  EXPECT_EQ(planned_[0].drafts, 1);
  EXPECT_EQ(planned_[0].propose, 0);
  run();
  plan();
  EXPECT_EQ(planned_[0].rows, 1);  // the last token
}

TEST_F(SchedulerTest, RemovesWhatWaits) {
  add(1, 1);
  EXPECT_EQ(scheduler_.remove(5), nullptr);
  EXPECT_NE(scheduler_.remove(1), nullptr);
  EXPECT_THAT(plan(), IsEmpty());
}

class ShortAnswersTest : public SchedulerTest {
 protected:
  ShortAnswersTest()
      : SchedulerTest(
            {.max_sequences = 4, .prefill_chunk = 320, .page_tokens = 16, .likely_answer = 16}) {}
};

TEST_F(ShortAnswersTest, TheYoungestMakesWayAndIsTheFirstToComeBack) {
  add(120, 200);  // 8 pages, 9 likely, 20 in the end
  Sequence* young = add(120, 100);
  add(60, 20);
  EXPECT_THAT(plan(), ElementsAre("1:120+", "2:120+")) << "9 pages and 9 leave no room for more";
  int steps = 0;
  do {
    run();
    plan();
    ++steps;
  } while (scheduler_.paused() == 0);
  EXPECT_EQ(steps, 41);  // both have ten pages, of 160 tokens; one wants another
  EXPECT_THAT(young->pages, IsEmpty());
  EXPECT_EQ(young->statistics.pauses, 1);
  EXPECT_EQ(planned_.size(), 1u);
  EXPECT_EQ(pages_.free(), 20 - 11);
  scheduler_.remove(1);
  // Nothing was saved, so its tokens run again, the answered ones too, before any new ones.
  EXPECT_THAT(plan(), ElementsAre("2:161+", "3:60+"));
}

class LargeChunkTest : public SchedulerTest {
 protected:
  LargeChunkTest()
      : SchedulerTest({.max_sequences = 4, .prefill_chunk = 150, .page_tokens = 100}) {}
};

TEST_F(LargeChunkTest, PromptsAreCutAtMultiplesOf64) {
  add(20, 5);
  add(300, 5);
  add(90, 5);
  add(10, 5);
  // 130 tokens may run beside the first prompt: the second one's up to 128. No place to cut the
  // others, nor the second after its turn, is near enough.
  EXPECT_THAT(plan(), ElementsAre("1:20+", "2:128"));
  run();
  EXPECT_THAT(plan(), ElementsAre("1:1+", "3:90+", "4:10+"));
  run();
  EXPECT_THAT(plan(), ElementsAre("1:1+", "3:1+", "4:1+", "2:128"));
  run();
  EXPECT_THAT(plan(), ElementsAre("1:1+", "3:1+", "4:1+", "2:44+"));
}

}  // namespace
}  // namespace qnext::engine
