#include "engine/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace qnext::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Pages of 2 tokens, 10 bytes each; states of 100 bytes.
class PrefixCacheTest : public ::testing::Test {
 protected:
  explicit PrefixCacheTest(size_t bytes = 1000)
      : cache_({.page_tokens = 2, .page_bytes = 10, .bytes = bytes}, pages_) {}

  using Tokens = std::vector<int32_t>;

  // Takes pages as a sequence does that goes on behind `shared` of them.
  std::vector<int32_t> take(size_t count, std::vector<int32_t> shared = {}) {
    const auto more = static_cast<int32_t>(count - shared.size());
    for (int32_t i = 0; i < more; ++i) shared.push_back(pages_.take());
    return shared;
  }

  // As one request would leave it that has begun with nothing.
  void remember(const Tokens& tokens, int32_t next = PrefixCache::no_token, char mark = 'a') {
    const std::vector<int32_t> pages = take(tokens.size() / 2);
    cache_.keep(tokens, pages, StateBytes(100, std::byte(mark)), next);
    pages_.give_back(pages);
  }

  int64_t known(const Tokens& prompt) {
    const CachedPrefix found = cache_.find(prompt);
    EXPECT_EQ(std::ssize(found.pages) * 2, found.tokens);
    EXPECT_EQ(found.state != nullptr, found.tokens > 0);
    pages_.give_back(found.pages);
    return found.tokens;
  }

  PageAllocator pages_{50};
  PrefixCache cache_;
};

TEST_F(PrefixCacheTest, NothingIsKnownAtFirst) {
  const CachedPrefix found = cache_.find(Tokens{1, 2, 3, 4, 5});
  EXPECT_EQ(found.tokens, 0);
  EXPECT_EQ(found.known_tokens, 0);
  EXPECT_EQ(found.state, nullptr);
  EXPECT_THAT(found.pages, IsEmpty());
}

TEST_F(PrefixCacheTest, APromptGoesOnFromTheDeepestSnapshotThatLeavesARow) {
  remember({1, 2, 3, 4}, PrefixCache::no_token, 'x');
  EXPECT_EQ(known({1, 2, 3, 4, 5}), 4);
  EXPECT_EQ(known({1, 2, 3, 4}), 0);  // a row must run, and there is no snapshot after 2
  EXPECT_EQ(known({1, 2, 3, 9, 5}), 0);
  EXPECT_EQ(known({1, 2}), 0);
  EXPECT_EQ(cache_.find(Tokens{1, 2, 3, 4, 5}).state->front(), std::byte('x'));
}

TEST_F(PrefixCacheTest, SaysWhereASnapshotWouldHaveHelped) {
  remember({1, 2, 3, 4, 5, 6});
  const CachedPrefix found = cache_.find(Tokens{1, 2, 3, 4, 9, 9, 9});
  EXPECT_EQ(found.tokens, 0);
  EXPECT_EQ(found.known_tokens, 4);
}

TEST_F(PrefixCacheTest, PagesAreSharedUntilTheLastHolderIsGone) {
  remember({1, 2, 3, 4});
  EXPECT_EQ(pages_.free(), 48);
  const CachedPrefix found = cache_.find(Tokens{1, 2, 3, 4, 5});
  EXPECT_EQ(pages_.references(found.pages[0]), 2);
  EXPECT_TRUE(cache_.make_room(48));
  EXPECT_FALSE(cache_.make_room(49));  // the two are in use
  EXPECT_EQ(pages_.free(), 48);
  pages_.give_back(found.pages);
  EXPECT_TRUE(cache_.make_room(50));
  EXPECT_EQ(cache_.bytes(), 0u);
  EXPECT_EQ(cache_.pages(), 0);
}

TEST_F(PrefixCacheTest, MakeRoomDropsNothingInVain) {
  remember({1, 2, 3, 4});
  const std::vector<int32_t> others = take(40);
  EXPECT_FALSE(cache_.make_room(11));
  EXPECT_EQ(known({1, 2, 3, 4, 5}), 4);
  EXPECT_TRUE(cache_.make_room(8));  // there already
  EXPECT_EQ(known({1, 2, 3, 4, 5}), 4);
  EXPECT_TRUE(cache_.make_room(10));
  EXPECT_EQ(known({1, 2, 3, 4, 5}), 0);
  pages_.give_back(others);
}

TEST_F(PrefixCacheTest, TheSamePathIsHeldOnce) {
  remember({1, 2, 3, 4});
  remember({1, 2, 3, 4, 5, 6});
  remember({1, 2, 3, 4, 7, 8});
  EXPECT_EQ(cache_.pages(), 4);
  EXPECT_EQ(cache_.bytes(), 340u);
  EXPECT_FALSE(cache_.wants(Tokens{1, 2, 3, 4}, 100));
  EXPECT_TRUE(cache_.wants(Tokens{1, 2}, 100));
  EXPECT_EQ(known({1, 2, 3, 4, 7, 8, 9}), 6);
}

TEST_F(PrefixCacheTest, WhatIsLargerThanTheBudgetIsNotWanted) {
  EXPECT_TRUE(cache_.wants(Tokens{1, 2}, 990));
  EXPECT_FALSE(cache_.wants(Tokens{1, 2}, 991));
  EXPECT_FALSE(cache_.wants(Tokens{}, 1));
}

class SmallPrefixCacheTest : public PrefixCacheTest {
 protected:
  SmallPrefixCacheTest() : PrefixCacheTest(350) {}
};

TEST_F(SmallPrefixCacheTest, TheLeastRecentlyUsedGoesFirst) {
  remember({1, 1});
  remember({2, 2});
  remember({3, 3});
  EXPECT_EQ(known({1, 1, 1}), 2);
  remember({4, 4});  // 440 bytes: one has to go
  EXPECT_EQ(known({1, 1, 1}), 2);
  EXPECT_EQ(known({2, 2, 2}), 0);
  remember({5, 5});
  EXPECT_EQ(known({3, 3, 3}), 0);
  EXPECT_LE(cache_.bytes(), 350u);
}

TEST_F(SmallPrefixCacheTest, WhatSavesMoreTokensStaysLonger) {
  remember({1, 1, 1, 1, 1, 1, 1, 1});
  remember({2, 2});
  remember({3, 3});
  EXPECT_EQ(known({1, 1, 1, 1, 1, 1, 1, 1, 1}), 8);
  EXPECT_EQ(known({2, 2, 2}), 0);
  EXPECT_EQ(known({3, 3, 3}), 2);
}

TEST_F(SmallPrefixCacheTest, ASnapshotInTheMiddleGoesAndItsPagesStay) {
  remember({1, 2});
  remember({1, 2, 3, 4});
  remember({9, 9});
  EXPECT_EQ(known({1, 2, 3, 4, 5}), 4);
  remember({8, 8});  // {1, 2} goes: the least useful, and the oldest
  EXPECT_EQ(known({1, 2, 3, 4, 5}), 4);
  EXPECT_EQ(known({1, 2, 7}), 0);
  EXPECT_EQ(cache_.find(Tokens{1, 2, 7}).known_tokens, 2);
}

TEST_F(PrefixCacheTest, MtpEntriesAreInStepWithTheTokensThatFollowed) {
  const auto in_step = [&](const Tokens& prompt) {
    const CachedPrefix found = cache_.find(prompt);
    pages_.give_back(found.pages);
    return found.tokens > 0 && found.mtp;
  };
  remember({1, 2, 3, 4}, 5);
  EXPECT_TRUE(in_step({1, 2, 3, 4, 5}));
  EXPECT_FALSE(in_step({1, 2, 3, 4, 6}));
  // Deeper, without the head: the pages above keep their entries.
  remember({1, 2, 3, 4, 5, 6});
  EXPECT_FALSE(in_step({1, 2, 3, 4, 5, 6, 7}));
  EXPECT_TRUE(in_step({1, 2, 3, 4, 5, 9}));
  // A sequence that did run it brings pages that have them.
  remember({1, 2, 3, 4, 5, 6, 7, 8}, 9);
  EXPECT_TRUE(in_step({1, 2, 3, 4, 5, 6, 7}));
  EXPECT_TRUE(in_step({1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(pages_.free(), 46);
}

TEST_F(PrefixCacheTest, AVeryLongPathEndsWithoutRecursion) {
  PageAllocator pages(200'000);
  std::vector<int32_t> all;
  for (int i = 0; i < 200'000; ++i) all.push_back(pages.take());
  {
    PrefixCache cache({.page_tokens = 1, .page_bytes = 0, .bytes = 1000}, pages);
    cache.keep(all, all, StateBytes(1), PrefixCache::no_token);
    EXPECT_EQ(cache.pages(), 200'000);
    EXPECT_FALSE(cache.make_room(1));  // all in use by the sequence
  }
  pages.give_back(all);
  EXPECT_EQ(pages.free(), 200'000);
}

// Against a plain list of what was kept, without a budget in the way.
TEST(PrefixCacheProperties, FindsTheLongestKeptPrefix) {
  std::mt19937 random(3);
  const auto below = [&random](uint32_t n) { return static_cast<int32_t>(random() % n); };
  for (int round = 0; round < 300; ++round) {
    const int64_t page_tokens = 1 + below(4);
    PageAllocator pages(2000);
    PrefixCache cache({.page_tokens = page_tokens, .page_bytes = 1, .bytes = 1 << 20}, pages);
    std::vector<std::vector<int32_t>> kept;
    for (int i = 0; i < 40; ++i) {
      std::vector<int32_t> tokens(static_cast<size_t>(1 + below(20)));
      for (int32_t& token : tokens) token = below(2);
      size_t longest = 0;
      for (const auto& one : kept)
        if (one.size() < tokens.size() && std::equal(one.begin(), one.end(), tokens.begin()))
          longest = std::max(longest, one.size());
      const CachedPrefix found = cache.find(tokens);
      EXPECT_EQ(found.tokens, static_cast<int64_t>(longest));
      EXPECT_GE(found.known_tokens, found.tokens);
      pages.give_back(found.pages);

      tokens.resize(tokens.size() / static_cast<size_t>(page_tokens) *
                    static_cast<size_t>(page_tokens));
      const auto count = static_cast<int32_t>(std::ssize(tokens) / page_tokens);
      std::vector<int32_t> own;
      for (int32_t k = 0; k < count; ++k) own.push_back(pages.take());
      cache.keep(tokens, own, StateBytes(3), PrefixCache::no_token);
      pages.give_back(own);
      if (!tokens.empty()) kept.push_back(tokens);
    }
    EXPECT_EQ(pages.free(), 2000 - cache.pages());
  }
}

}  // namespace
}  // namespace qnext::engine
