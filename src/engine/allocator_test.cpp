#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "backend/step.h"
#include "engine/page_allocator.h"
#include "engine/slot_allocator.h"

namespace qnext::engine {
namespace {

using ::testing::ElementsAre;

std::vector<int32_t> copy(std::span<const int32_t> values) {
  return {values.begin(), values.end()};
}

TEST(PageAllocator, TakenPagesAreDistinctAndComeBack) {
  PageAllocator pages(8);
  std::vector<int32_t> taken;
  for (int i = 0; i < 5; ++i) taken.push_back(pages.take());
  EXPECT_EQ(std::set<int32_t>(taken.begin(), taken.end()).size(), 5u);
  EXPECT_EQ(pages.free(), 3);
  pages.give_back(taken);
  EXPECT_EQ(pages.free(), 8);
}

TEST(PageAllocatorDeathTest, ChecksItsCallers) {
  PageAllocator pages(1);
  const std::vector<int32_t> taken = {pages.take()};
  EXPECT_DEATH(pages.take(), "none is free");
  pages.give_back(taken);
  EXPECT_DEATH(pages.give_back(taken), "was not taken");
}

TEST(SlotAllocator, TakesAndGivesBack) {
  SlotAllocator slots(5);
  const std::vector<int32_t> first = slots.take(3);
  const std::vector<int32_t> second = slots.take(2);
  std::set<int32_t> all(first.begin(), first.end());
  all.insert(second.begin(), second.end());
  EXPECT_THAT(all, ElementsAre(0, 1, 2, 3, 4));
  EXPECT_EQ(slots.free(), 0);
  slots.give_back(first);
  EXPECT_EQ(slots.free(), 3);
}

TEST(SlotAllocatorDeathTest, ChecksItsCallers) {
  SlotAllocator slots(2);
  EXPECT_DEATH(slots.take(3), "3 slots wanted, 2 free");
  const std::vector<int32_t> taken = slots.take(1);
  slots.give_back(taken);
  EXPECT_DEATH(slots.give_back(taken), "was not taken");
}

TEST(SequenceSlots, APromptKeepsOnlyItsLastState) {
  SequenceSlots slots({7, 8, 9});
  EXPECT_EQ(slots.input(), backend::no_slot);
  EXPECT_THAT(copy(slots.outputs(4, 0)),
              ElementsAre(backend::no_slot, backend::no_slot, backend::no_slot, 7));
  slots.advance(0, 0);
  EXPECT_EQ(slots.input(), 7);
}

TEST(SequenceSlots, EveryRowThatMayBeTheLastGoodOneHasItsSlot) {
  SequenceSlots slots({7, 8, 9});
  slots.advance(0, 0);
  EXPECT_THAT(copy(slots.outputs(3, 2)), ElementsAre(8, 9, 7));
  slots.advance(2, 1);  // the row of the first draft was the last good one
  EXPECT_EQ(slots.input(), 9);
  EXPECT_THAT(copy(slots.outputs(3, 2)), ElementsAre(8, 7, 9));
  slots.advance(2, 2);  // all good: in place
  EXPECT_EQ(slots.input(), 9);
  EXPECT_THAT(copy(slots.outputs(2, 1)), ElementsAre(8, 9));
  slots.advance(1, 0);
  EXPECT_EQ(slots.input(), 8);
}

}  // namespace
}  // namespace qnext::engine
