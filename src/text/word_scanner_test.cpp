#include "text/word_scanner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "text/tokenizer_test_data.h"

namespace qnext {
namespace {

using testing::ElementsAre;

std::vector<std::string> words(std::string_view text, bool marks_are_letters = false) {
  const WordScanner scanner(marks_are_letters);
  std::vector<std::string> out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = scanner.word_end(text, begin);
    out.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return out;
}

TEST(WordScanner, CutsText) {
  EXPECT_THAT(words("Hello, world!"), ElementsAre("Hello", ",", " world", "!"));
  EXPECT_THAT(words("it's THEY'LL 'start"), ElementsAre("it", "'s", " THEY", "'LL", " '", "start"));
  EXPECT_THAT(words("'start"), ElementsAre("'s", "tart"));
  EXPECT_THAT(words("it'\u017F"), ElementsAre("it", "'\u017F"));
  EXPECT_THAT(words("a12 3"), ElementsAre("a", "1", "2", " ", "3"));
  EXPECT_THAT(words("x +=\n\n y"), ElementsAre("x", " +=\n\n", " y"));
  EXPECT_THAT(words("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(words("a \n \n  b"), ElementsAre("a", " \n \n", " ", " b"));
  EXPECT_THAT(words("a  "), ElementsAre("a", "  "));
  EXPECT_THAT(words("\tx \t!"), ElementsAre("\tx", " ", "\t", "!"));
  EXPECT_THAT(words("\u3000\u3000x"), ElementsAre("\u3000", "\u3000x"));
}

TEST(WordScanner, CountsMarksAsLettersWhereAsked) {
  EXPECT_THAT(words("\u0928\u092E\u0938\u094D\u0924"),
              ElementsAre("\u0928\u092E\u0938", "\u094D\u0924"));
  EXPECT_THAT(words("\u0928\u092E\u0938\u094D\u0924", true),
              ElementsAre("\u0928\u092E\u0938\u094D\u0924"));
  EXPECT_THAT(words("!\u0301", false), ElementsAre("!\u0301"));
  EXPECT_THAT(words("!!\u0301", true), ElementsAre("!!", "\u0301"));
}

TEST(WordScanner, KnowsItsExpressions) {
  EXPECT_TRUE(WordScanner::from_expression(test::qwen3_expression));
  EXPECT_TRUE(WordScanner::from_expression(test::qwen35_expression));
  EXPECT_FALSE(WordScanner::from_expression("\\p{L}+"));
  EXPECT_FALSE(WordScanner::from_expression(""));
}

TEST(WordScanner, CoversAnyTextInWholeCharacters) {
  test::RandomText random(5);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = random.text();
    std::string joined;
    for (const std::string& word : words(text, i % 2)) {
      ASSERT_FALSE(word.empty());
      ASSERT_EQ(utf8::first_invalid(word), std::nullopt);
      joined += word;
    }
    ASSERT_EQ(joined, text);
  }
}

}  // namespace
}  // namespace qnext
