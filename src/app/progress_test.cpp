#include "app/progress.h"

#include <gtest/gtest.h>

namespace qnext::app {
namespace {

TEST(ProgressLine, ShowsShareBytesAndTimeLeft) {
  EXPECT_EQ(progress_line("loading", 512, 2048, 3.0, 80),
            "loading [########........................]  25 %  512 B of 2.00 KiB, 9.0 s "
            "left");
}

TEST(ProgressLine, NeverFillsTheTerminalsWidth) {
  for (int columns = 1; columns < 200; ++columns) {
    for (const double done : {0.0, 1.0, 1e9, 3e9}) {
      EXPECT_LT(progress_line("writing", done, 3e9, 100, columns).size(),
                static_cast<size_t>(columns));
    }
  }
}

TEST(ProgressLine, StandsNothingKnown) {
  EXPECT_EQ(progress_line("loading", 0, 0, 0, 60),
            "loading [...............................]   0 %  0 B of 0 B");
}

}  // namespace
}  // namespace qnext::app
