#include "app/units.h"

#include <gtest/gtest.h>

namespace qnext::app {
namespace {

TEST(Units, BytesHaveThreeDigits) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(1023), "1023 B");
  EXPECT_EQ(bytes_text(1024), "1.00 KiB");
  EXPECT_EQ(bytes_text(1536.0 * 1024), "1.50 MiB");
  EXPECT_EQ(bytes_text(999.6 * 1024), "0.98 MiB");  // never "1000 KiB"
  EXPECT_EQ(bytes_text(7.1 * (1 << 30)), "7.10 GiB");
  EXPECT_EQ(bytes_text(0x1p60), "1048576 TiB");
}

TEST(Units, CountsScaleByThousands) {
  EXPECT_EQ(count_text(950), "950");
  EXPECT_EQ(count_text(7116), "7.12 k");
  EXPECT_EQ(count_text(79.67e9), "79.7 G");
  EXPECT_EQ(count_text(999.7e6), "1.00 G");
}

TEST(Units, SecondsGetTheirUnit) {
  EXPECT_EQ(seconds_text(0.0123), "12 ms");
  EXPECT_EQ(seconds_text(0.9996), "1.0 s");
  EXPECT_EQ(seconds_text(3.44), "3.4 s");
  EXPECT_EQ(seconds_text(125), "2 min 05 s");
  EXPECT_EQ(seconds_text(119.97), "2 min 00 s");
}

TEST(Units, RatesHaveThreeDigits) {
  EXPECT_EQ(rate_text(0.517), "0.52");
  EXPECT_EQ(rate_text(12.34), "12.3");
  EXPECT_EQ(rate_text(99.96), "100");
  EXPECT_EQ(rate_text(1520.4), "1520");
}

TEST(Units, ThousandsAreGrouped) {
  EXPECT_EQ(grouped_text(0), "0");
  EXPECT_EQ(grouped_text(999), "999");
  EXPECT_EQ(grouped_text(1000), "1,000");
  EXPECT_EQ(grouped_text(1010000), "1,010,000");
  EXPECT_EQ(grouped_text(-123456), "-123,456");
}

}  // namespace
}  // namespace qnext::app
