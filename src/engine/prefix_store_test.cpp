#include "engine/prefix_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <vector>

#include "base/file.h"
#include "checkpoint/temporary_folder.h"

namespace qnext::engine {
namespace {

namespace fs = std::filesystem;
using ::testing::SizeIs;

constexpr int64_t page = 4;
constexpr size_t page_bytes = 10;
constexpr size_t state_bytes = 7;

std::vector<int32_t> counted(int32_t first, int32_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class PrefixStoreTest : public ::testing::Test {
 protected:
  PrefixStoreTest() { open(); }

  void open(size_t bytes = 100'000, uint64_t fingerprint = 5) {
    store_.reset();
    store_.emplace(PrefixStore::Limits{.folder = folder_.path(),
                                       .bytes = bytes,
                                       .fingerprint = fingerprint,
                                       .page_tokens = page,
                                       .page_bytes = page_bytes,
                                       .state_bytes = state_bytes});
  }

  // Every page holds its number plus `mark`, the state `mark`.
  void put(const std::vector<int32_t>& tokens, int64_t from, char mark) {
    PrefixStore::Draft draft = store_->draft(tokens, from, 9);
    for (int64_t i = from / page; i < std::ssize(tokens) / page; ++i)
      std::ranges::fill(draft.page(i - from / page), std::byte(mark + i));
    std::ranges::fill(draft.state(), std::byte(mark));
    store_->put(std::move(draft), true);
  }

  void expect_contents(const PrefixStore::Segment& segment, const std::vector<int32_t>& prompt,
                       char mark) {
    const auto contents = store_->read(segment, prompt);
    ASSERT_TRUE(contents);
    ASSERT_EQ(contents->pages.size(),
              static_cast<size_t>((segment.tokens - segment.from) / page) * page_bytes);
    for (size_t i = 0; i < contents->pages.size(); ++i)
      EXPECT_EQ(contents->pages[i],
                std::byte(mark + static_cast<int>(i / page_bytes +
                                                  static_cast<size_t>(segment.from / page))));
    EXPECT_THAT(contents->state, ::testing::Each(std::byte(mark)));
    EXPECT_THAT(contents->state, SizeIs(state_bytes));
    EXPECT_EQ(segment.mtp_next, 9);
  }

  std::vector<fs::path> files() const {
    std::vector<fs::path> all;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path()))
      if (entry.is_regular_file()) all.push_back(entry.path());
    return all;
  }

  TemporaryFolder folder_;
  std::optional<PrefixStore> store_;
};

TEST_F(PrefixStoreTest, WhatWasPutIsThereAfterARestart) {
  put(counted(0, 8), 0, 'a');
  EXPECT_EQ(store_->stored(counted(0, 9)), 8);  // it may still wait
  open();
  const std::vector<int32_t> prompt = counted(0, 20);
  const auto chain = store_->find(prompt, 0, 0);
  ASSERT_THAT(chain, SizeIs(1));
  expect_contents(chain[0], prompt, 'a');
  EXPECT_THAT(store_->find(prompt, 8, 8), SizeIs(0));
  EXPECT_THAT(store_->find(counted(0, 8), 0, 0), SizeIs(0));  // a row must run
  EXPECT_THAT(store_->find(counted(1, 20), 0, 0), SizeIs(0));
}

TEST_F(PrefixStoreTest, LongerOnesBuildOnShorterOnes) {
  const std::vector<int32_t> prompt = counted(0, 30);
  put(counted(0, 8), 0, 'a');
  put(counted(0, 16), 8, 'b');
  put(counted(0, 20), 16, 'c');
  open();
  auto chain = store_->find(prompt, 0, 0);
  ASSERT_THAT(chain, SizeIs(3));
  expect_contents(chain[0], prompt, 'a');
  expect_contents(chain[1], prompt, 'b');
  expect_contents(chain[2], prompt, 'c');
  EXPECT_THAT(store_->find(prompt, 8, 8), SizeIs(2));
  EXPECT_THAT(store_->find(prompt, 8, 16), SizeIs(1));
  EXPECT_THAT(store_->find(prompt, 16, 24), SizeIs(1));
}

TEST_F(PrefixStoreTest, WhatBuildsOnAMissingFileIsOfNoUse) {
  const std::vector<int32_t> prompt = counted(0, 30);
  put(counted(0, 8), 0, 'a');
  put(counted(0, 16), 8, 'b');
  open();
  const auto chain = store_->find(prompt, 0, 0);
  ASSERT_THAT(chain, SizeIs(2));
  for (const fs::path& file : files())
    if (fs::file_size(file) < chain[1].bytes) fs::remove(file);
  open();
  EXPECT_THAT(store_->find(prompt, 0, 0), SizeIs(0));
  EXPECT_THAT(store_->find(prompt, 0, 8), SizeIs(1));
}

TEST_F(PrefixStoreTest, OtherModelsKeepTheirFilesToThemselves) {
  put(counted(0, 8), 0, 'a');
  open(100'000, 6);
  EXPECT_THAT(store_->find(counted(0, 20), 0, 0), SizeIs(0));
  EXPECT_EQ(store_->bytes(), 0u);
  open();
  EXPECT_THAT(store_->find(counted(0, 20), 0, 0), SizeIs(1));
}

TEST_F(PrefixStoreTest, ADamagedFileIsNeverBelieved) {
  const std::vector<int32_t> prompt = counted(0, 20);
  put(counted(0, 8), 0, 'a');
  store_.reset();
  ASSERT_THAT(files(), SizeIs(1));
  const std::string path = files()[0].string();
  const std::string good = read_file(path);
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    std::ofstream(path, std::ios::binary) << bad;
    open();
    for (const auto& segment : store_->find(prompt, 0, 0))
      EXPECT_FALSE(store_->read(segment, prompt)) << "byte " << at;
    EXPECT_THAT(store_->find(prompt, 0, 0), SizeIs(0)) << "byte " << at;
    EXPECT_THAT(files(), SizeIs(0)) << "byte " << at;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    std::ofstream(path, std::ios::binary) << good.substr(0, size);
    open();
    EXPECT_THAT(store_->find(prompt, 0, 0), SizeIs(0)) << size << " bytes";
    EXPECT_THAT(files(), SizeIs(0)) << size << " bytes";
  }
}

TEST_F(PrefixStoreTest, WhatWasNotFinishedGoesAtTheNextStart) {
  put(counted(0, 8), 0, 'a');
  store_.reset();
  const fs::path left = files()[0].string() + ".123.tmp";
  std::ofstream(left) << "half";
  open();
  EXPECT_FALSE(fs::exists(left));
  EXPECT_THAT(store_->find(counted(0, 20), 0, 0), SizeIs(1));
}

TEST_F(PrefixStoreTest, TheLeastLatelyUsedGoFirstAndTheirBasesLast) {
  put(counted(0, 8), 0, 'a');
  put(counted(0, 16), 8, 'b');
  put(counted(100, 8), 0, 'c');
  open();
  const size_t all = store_->bytes();
  EXPECT_THAT(store_->find(counted(100, 20), 0, 0), SizeIs(1));
  EXPECT_THAT(store_->find(counted(0, 12), 0, 0), SizeIs(1));
  open(all);  // nothing has to go yet; uses count from here on
  EXPECT_THAT(store_->find(counted(100, 20), 0, 0), SizeIs(1));
  EXPECT_THAT(store_->find(counted(0, 12), 0, 0), SizeIs(1));
  put(counted(200, 4), 0, 'd');
  while (store_->stored(counted(200, 4)) == 0 || store_->bytes() > all) std::this_thread::yield();
  store_->put(store_->draft(counted(300, 4), 0, 9), true);
  open(all);
  EXPECT_LE(store_->bytes(), all);
  EXPECT_THAT(store_->find(counted(0, 20), 0, 0), SizeIs(1));  // 'b', which nobody used, is gone
}

TEST_F(PrefixStoreTest, AFileThatCannotBeWrittenIsForgotten) {
  fs::permissions(files().empty() ? fs::path(folder_.path()) : files()[0], fs::perms::owner_all);
  const fs::path own = fs::directory_iterator(folder_.path())->path();
  fs::remove_all(own);
  std::ofstream(own) << "in the way";  // a file where the folder was
  put(counted(0, 8), 0, 'a');
  store_.reset();
  EXPECT_TRUE(fs::is_regular_file(own));
}

TEST_F(PrefixStoreTest, AFolderThatCannotBeMadeIsOneClearLine) {
  const std::string path = folder_ / "file";
  std::ofstream(path) << "x";
  try {
    PrefixStore store({.folder = path});
    FAIL();
  } catch (const std::exception& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("cannot make the cache's folder"));
  }
}

}  // namespace
}  // namespace qnext::engine
