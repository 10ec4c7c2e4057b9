#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "text/tokenizer_test_data.h"

namespace qnext {
namespace {

class DetokenizerTest : public testing::Test {
 protected:
  int32_t byte(unsigned char value) const {
    const char character = static_cast<char>(value);
    return tokenizer_.token_id({&character, 1}).value();
  }
  const Tokenizer tokenizer_ = Tokenizer::from_json(test::small_tokenizer_json(), "small");
};

TEST_F(DetokenizerTest, WaitsForWholeCharacters) {
  Detokenizer stream(tokenizer_);
  EXPECT_EQ(stream.push(258), " the");
  EXPECT_EQ(stream.push(byte(0xE4)), "");
  EXPECT_EQ(stream.push(byte(0xBD)), "");
  EXPECT_EQ(stream.push(byte(0xA0)), "\u4F60");
  EXPECT_EQ(stream.finish(), "");
}

TEST_F(DetokenizerTest, ReplacesBrokenCharacters) {
  Detokenizer stream(tokenizer_);
  EXPECT_EQ(stream.push(byte(0xE4)), "");
  EXPECT_EQ(stream.push(258), "\uFFFD the");
  EXPECT_EQ(stream.push(byte(0xFF)), "\uFFFD");
  EXPECT_EQ(stream.push(byte(0xF0)), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.push(byte(0x9F)), "\uFFFD");  // a new stream
}

TEST_F(DetokenizerTest, LeavesSpecialTokensOutOnRequest) {
  Detokenizer all(tokenizer_), plain(tokenizer_, true);
  EXPECT_EQ(all.push(264), "<s>");
  EXPECT_EQ(plain.push(264), "");
  EXPECT_EQ(plain.push(265), "<call>");
  EXPECT_EQ(plain.push(9999), "");
  // A token that is left out does not break the character around it.
  EXPECT_EQ(plain.push(byte(0xC3)), "");
  EXPECT_EQ(plain.push(264), "");
  EXPECT_EQ(plain.push(byte(0xA9)), "\u00E9");
}

TEST_F(DetokenizerTest, GivesInAllWhatDecodeGives) {
  test::RandomText random(1);
  for (int i = 0; i < 20000; ++i) {
    std::vector<int32_t> ids(random.below(16));
    for (int32_t& id : ids) id = static_cast<int32_t>(random.below(267));
    const bool skip_special = random.below(2);
    Detokenizer stream(tokenizer_, skip_special);
    std::string text;
    for (const int32_t id : ids) {
      text += stream.push(id);
      ASSERT_EQ(utf8::first_invalid(text), std::nullopt);
    }
    text += stream.finish();
    ASSERT_EQ(text, tokenizer_.decode(ids, skip_special));
  }
}

}  // namespace
}  // namespace qnext
