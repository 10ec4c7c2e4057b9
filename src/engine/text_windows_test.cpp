#include "engine/text_windows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace qnext::engine {
namespace {

TEST(TextWindows, AWholeTextIsOneWindow) {
  const std::vector<TextWindow> windows = text_windows(10, 64, 32);
  ASSERT_EQ(windows.size(), 1u);
  EXPECT_EQ(windows[0].first, 0);
  EXPECT_EQ(windows[0].end, 10);
  EXPECT_EQ(windows[0].first_scored, 1);
}

// Every token but the first is scored once and in order; windows start where they must, are full
// but for the last, and leave tokens behind the first window their context.
TEST(TextWindows, ScoreEveryTokenOnce) {
  std::mt19937 random(1);
  const auto between = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 2000; ++round) {
    const int64_t tokens = between(2, 500);
    const int64_t context = between(2, 200);
    const int64_t stride = between(1, context - 1);
    const std::vector<TextWindow> windows = text_windows(tokens, context, stride);
    int64_t scored = 1;
    for (size_t i = 0; i < windows.size(); ++i) {
      const TextWindow& window = windows[i];
      EXPECT_EQ(window.first, static_cast<int64_t>(i) * stride);
      EXPECT_EQ(window.end, std::min(window.first + context, tokens));
      EXPECT_EQ(window.first_scored, scored);
      EXPECT_LT(window.first_scored, window.end);
      EXPECT_GE(window.first_scored - window.first, i == 0 ? 1 : context - stride);
      scored = window.end;
    }
    EXPECT_EQ(scored, tokens);
  }
}

// All rows but the last, in order; none scored before it is due, all after; steps within their
// limits and cut where prompts may be cut.
TEST(TextWindows, StepsCoverAWindow) {
  std::mt19937 random(2);
  const auto between = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 2000; ++round) {
    const bool aligned = round % 2 == 0;
    const int64_t unit = aligned ? backend::prompt_cut : 1;
    const int64_t scored_rows = unit * between(1, 6);
    const StepLimits limits{scored_rows + unit * between(0, 6), scored_rows};
    TextWindow window;
    window.first = between(0, 100);
    window.end = window.first + between(2, 1500);
    window.first_scored = between(window.first + 1, window.end - 1);
    int64_t row = 0;
    for (const WindowStep& step : window_steps(window, limits)) {
      EXPECT_EQ(step.first, row);
      ASSERT_GT(step.rows, 0);
      EXPECT_LE(step.rows, step.scores() ? limits.scored_rows : limits.rows);
      if (aligned) {
        EXPECT_EQ(step.first % backend::prompt_cut, 0);
      }
      row += step.rows;
      EXPECT_EQ(step.first_scored,
                std::clamp(window.first_scored - window.first - 1, step.first, row));
    }
    EXPECT_EQ(row, window.end - window.first - 1);
  }
}

}  // namespace
}  // namespace qnext::engine
