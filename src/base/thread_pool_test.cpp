#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace qnext {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, CallsTheBodyOnceForEveryIndex) {
  ThreadPool pool(GetParam());
  for (const int64_t count : {0, 1, 7, 1000}) {
    for (const int64_t grain : {1, 3, 64}) {
      std::vector<int> calls(static_cast<size_t>(count), 0);
      const auto body = [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++calls[static_cast<size_t>(i)];
      };
      pool.parallel_for(count, grain, body);
      pool.parallel_try(count, grain, body);
      EXPECT_EQ(calls, std::vector<int>(static_cast<size_t>(count), 2)) << count << " by " << grain;
    }
  }
}

TEST_P(ThreadPoolTest, ThrowsWhatABodyThrewAndWorksOn) {
  ThreadPool pool(GetParam());
  std::atomic<int> threw{0};
  const auto body = [&](int64_t, int64_t end) {
    if (end <= 10) return;
    ++threw;
    throw std::runtime_error("ten and above");
  };
  EXPECT_THROW(pool.parallel_try(100, 1, body), std::runtime_error);
  EXPECT_GE(threw, 1);
  EXPECT_LE(threw, GetParam()) << "ranges begun after the first exception";
  int calls = 0;
  pool.parallel_try(1, 1, [&](int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 1);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 5));

}  // namespace
}  // namespace qnext
