#include "text/normalize.h"

#include <gtest/gtest.h>

#include "text/tokenizer_test_data.h"

namespace qnext::unicode {
namespace {

std::string normalized(std::string_view text) {
  std::string storage;
  return std::string(nfc(text, storage));
}

TEST(Normalize, ComposesAndOrders) {
  EXPECT_EQ(normalized("e\u0301"), "\u00E9");
  EXPECT_EQ(normalized("plain e\u0301 plain"), "plain \u00E9 plain");
  EXPECT_EQ(normalized("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(normalized("E\u0302\u0323"), "\u1EC6");
  EXPECT_EQ(normalized("\u212B"), "\u00C5");
  EXPECT_EQ(normalized("\u0958"), "\u0915\u093C");  // excluded from composition
  EXPECT_EQ(normalized("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(normalized("\uAC00\u11A8"), "\uAC01");
  EXPECT_EQ(normalized("\uAC01\u11A8"), "\uAC01\u11A8");
  EXPECT_EQ(normalized("\u09C7\u0334\u09BE"), "\u09C7\u0334\u09BE");  // blocked
  EXPECT_EQ(normalized("\u0301"), "\u0301");
}

TEST(Normalize, ReturnsNormalTextItself) {
  std::string storage;
  for (const std::string_view text :
       {"", "ascii only", "caf\u00E9 \u4F60", "\u0915\u094D\u0937", "x\u0334"})
    EXPECT_EQ(nfc(text, storage).data(), text.data()) << text;
}

TEST(Normalize, ChangesNothingTheSecondTime) {
  test::RandomText random(3);
  for (int i = 0; i < 20000; ++i) {
    const std::string once = normalized(random.text());
    ASSERT_EQ(utf8::first_invalid(once), std::nullopt);
    ASSERT_EQ(normalized(once), once);
  }
}

// Normal text in the middle must not depend on where the text is cut: a starter that is not
// complex separates.
TEST(Normalize, TreatsSegmentsAlone) {
  test::RandomText random(4);
  for (int i = 0; i < 20000; ++i) {
    const std::string left = random.text(), right = random.text();
    ASSERT_EQ(normalized(left + "x" + right), normalized(left) + normalized("x" + right));
  }
}

}  // namespace
}  // namespace qnext::unicode
