// Files of cached prefixes that are read while others run.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "checkpoint/temporary_folder.h"
#include "engine/scheduler.h"
#include "engine/testing/fake_backend.h"

namespace qnext::engine {
namespace {

constexpr int64_t page = 16;

std::vector<int32_t> counted(int32_t first, int32_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class PrefixLoadTest : public ::testing::Test {
 protected:
  PrefixLoadTest() {
    backend_.reserve({.pages = 20, .slots = 6, .rows = 64});
    // What another process left behind: two pages of a prompt.
    open();
    const std::vector<int32_t> pages = {pages_.take(), pages_.take()};
    cache_->keep(counted(0, 2 * page), pages, StateBytes(backend_.capabilities().slot_bytes),
                 PrefixCache::no_token);
    pages_.give_back(pages);
    open();
    scheduler_.use_cache(*cache_);
  }
  ~PrefixLoadTest() override { hold_ = false; }

  void open() {
    cache_.reset();
    store_.reset();
    const backend::Capabilities& capabilities = backend_.capabilities();
    store_.emplace(PrefixStore::Limits{.folder = folder_.path(),
                                       .bytes = 1 << 20,
                                       .fingerprint = 1,
                                       .page_tokens = page,
                                       .page_bytes = capabilities.page_bytes,
                                       .state_bytes = capabilities.slot_bytes,
                                       .reading = [this] {
                                         while (hold_) std::this_thread::yield();
                                       }});
    cache_.emplace(
        PrefixCache::Limits{
            .page_tokens = page, .page_bytes = capabilities.page_bytes, .bytes = 1 << 20},
        pages_, PrefixCache::Disk{backend_, *store_});
  }

  Sequence& add(std::vector<int32_t> prompt) {
    ++last_id_;
    auto sequence =
        std::make_unique<Sequence>(last_id_, Answer(last_id_, listener_, nullptr, {}, {}));
    sequence->tokens = std::move(prompt);
    sequence->prompt_tokens = sequence->prefill_tokens = sequence->length();
    sequence->limit = sequence->length() + 5;
    Sequence& added = *sequence;
    scheduler_.enqueue(std::move(sequence));
    return added;
  }
  // The ids of those that the next batch runs.
  std::vector<RequestId> plan() {
    std::vector<RequestId> ids;
    for (const PlannedStep& step : scheduler_.plan()) ids.push_back(step.sequence->id);
    return ids;
  }

  std::atomic<bool> hold_ = false;
  TemporaryFolder folder_;
  testing::FakeBackend backend_{{.vocabulary = 1000, .page_tokens = page, .context = 400}};
  PageAllocator pages_{20};
  SlotAllocator slots_{6};
  std::optional<PrefixStore> store_;
  std::optional<PrefixCache> cache_;
  Listener listener_;
  Scheduler scheduler_{
      {.max_sequences = 2, .prefill_chunk = 64, .page_tokens = page}, pages_, slots_};
  RequestId last_id_ = 0;
};

using Ids = std::vector<RequestId>;

TEST_F(PrefixLoadTest, OthersGoOnMeanwhile) {
  hold_ = true;
  Sequence& first = add(counted(0, 40));
  add(counted(500, 20));
  EXPECT_EQ(plan(), Ids{2});
  // Its place is kept: a third one waits.
  add(counted(600, 20));
  EXPECT_EQ(plan(), Ids{2});
  EXPECT_EQ(scheduler_.waiting(), 2);
  EXPECT_TRUE(first.loading());
  hold_ = false;
  while (first.loading()) scheduler_.wait_for_load();
  EXPECT_EQ(plan(), (Ids{2, 1}));
  EXPECT_EQ(first.computed, 2 * page);
  EXPECT_EQ(first.statistics.cached_tokens, 2 * page);
}

TEST_F(PrefixLoadTest, AloneItWaitsAndThenRuns) {
  hold_ = true;
  const Sequence& only = add(counted(0, 40));
  EXPECT_TRUE(plan().empty());
  scheduler_.wait_for_load();  // not for ever
  EXPECT_TRUE(plan().empty());
  hold_ = false;
  while (only.loading()) scheduler_.wait_for_load();
  EXPECT_EQ(plan(), Ids{1});
  EXPECT_EQ(only.computed, 2 * page);
}

TEST_F(PrefixLoadTest, WhoLeavesMeanwhileIsNotWaitedFor) {
  hold_ = true;
  add(counted(0, 40));
  EXPECT_TRUE(plan().empty());
  EXPECT_TRUE(scheduler_.remove(1));
  EXPECT_TRUE(plan().empty());
  EXPECT_EQ(scheduler_.waiting(), 0);
}

// What has been read is not read again.
TEST_F(PrefixLoadTest, ReadFilesMayGo) {
  const std::vector<int32_t> prompt = counted(0, 40);
  const auto load = cache_->load(prompt);
  ASSERT_TRUE(load);
  while (!load->done()) load->wait(std::chrono::milliseconds(5));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path()))
    if (entry.is_regular_file()) std::filesystem::remove(entry.path());
  const CachedPrefix found = cache_->find(prompt, load.get());
  EXPECT_EQ(found.tokens, 2 * page);
  pages_.give_back(found.pages);
  EXPECT_FALSE(cache_->load(prompt)) << "all of it is in memory now";
}

TEST_F(PrefixLoadTest, ADamagedFileIsAsGoodAsNone) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path()))
    if (entry.is_regular_file()) std::filesystem::resize_file(entry.path(), 100);
  const Sequence& only = add(counted(0, 40));
  while (plan().empty()) scheduler_.wait_for_load();
  EXPECT_EQ(only.computed, 0);
}

}  // namespace
}  // namespace qnext::engine
