#include "text/utf8.h"

#include <gtest/gtest.h>

#include <random>

namespace qnext::utf8 {
namespace {

std::string replaced(std::string_view bytes) {
  std::string text;
  StreamDecoder decoder;
  decoder.push(bytes, text);
  decoder.finish(text);
  return text;
}

TEST(Utf8, RoundTripsEveryCodePoint) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append(text, c);
    ASSERT_EQ(decode(text.data()), c);
    ASSERT_EQ(length_of(text[0]), text.size());
    ASSERT_EQ(first_invalid(text), std::nullopt);
    const Character character = examine(text, 0);
    ASSERT_EQ(character.kind, Kind::valid);
    ASSERT_EQ(character.code_point, c);
    ASSERT_EQ(previous(text, text.size()), 0u);
    // Every proper prefix waits for more.
    for (size_t n = 1; n < text.size(); ++n) {
      ASSERT_EQ(examine(text.substr(0, n), 0).kind, Kind::incomplete);
      ASSERT_EQ(first_invalid(text.substr(0, n)), 0u);
    }
  }
}

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(first_invalid(""), std::nullopt);
  EXPECT_EQ(first_invalid("twelve bytes\x80"), 12u);
  EXPECT_EQ(first_invalid("\xC0\x80"), 0u);          // overlong
  EXPECT_EQ(first_invalid("a\xE0\x9F\xBF"), 1u);     // overlong
  EXPECT_EQ(first_invalid("ab\xED\xA0\x80"), 2u);    // surrogate
  EXPECT_EQ(first_invalid("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(first_invalid("\xF5"), 0u);
  EXPECT_EQ(first_invalid("\xE4\xBD\xA0\xE4\xBD"), 3u);  // cut off
  EXPECT_EQ(first_invalid("\xE4\xBD\xA0 after that ascii \xFE"), 21u);
}

// What Python 3.11 gives for bytes.decode("utf-8", errors="replace").
TEST(Utf8, ReplacesAsPythonDoes) {
  EXPECT_EQ(replaced("\x80"), "\uFFFD");
  EXPECT_EQ(replaced("\xC0\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(replaced("\xE4\xBD"), "\uFFFD");
  EXPECT_EQ(replaced("\xE4\xBDz"), "\uFFFDz");
  EXPECT_EQ(replaced("\xE4z"), "\uFFFDz");
  EXPECT_EQ(replaced("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replaced("\xF0\x9F\x98"), "\uFFFD");
  EXPECT_EQ(replaced("\xF0\x9F\x98\xF0\x9F\x98\x80"), "\uFFFD\U0001F600");
  EXPECT_EQ(replaced("\xF0\x80\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replaced("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replaced("\xF8\x88\x80\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replaced("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
                     "A"),
            "\uFFFD\uFFFD\uFFFD\uFFFD"
            "A");
}

TEST(Utf8, StreamsTheSameHoweverCut) {
  // Bytes that begin, continue or break characters.
  const std::string_view alphabet = "a\x80\xBF\xC2\xC3\xE0\xA0\xE4\xBD\xED\x9F\xF0\x90\xF4\x8F\xFF";
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes;
    for (size_t n = random() % 12; n > 0; --n) bytes += alphabet[random() % alphabet.size()];
    StreamDecoder decoder;
    std::string text;
    for (size_t done = 0; done < bytes.size();) {
      const size_t n = std::min<size_t>(random() % 4, bytes.size() - done);
      decoder.push(std::string_view(bytes).substr(done, n), text);
      ASSERT_EQ(first_invalid(text), std::nullopt);
      done += n;
    }
    decoder.finish(text);
    ASSERT_EQ(text, replaced(bytes));
  }
}

}  // namespace
}  // namespace qnext::utf8
