#include "engine/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "engine/testing/tiny_tokenizer.h"

namespace qnext::engine {
namespace {

using ::testing::ElementsAre;

// Writes down all events in their order: tokens as numbers, text in quotes.
class Script : public Listener {
 public:
  void on_token(RequestId, const ops::SampledToken& token) override {
    events.push_back(std::to_string(token.token));
  }
  void on_text(RequestId, std::string_view piece) override {
    events.push_back("'" + std::string(piece) + "'");
  }
  std::vector<std::string> events;
};

class AnswerTest : public ::testing::Test {
 protected:
  Answer answer(const std::vector<std::string>& stop_strings = {}) {
    return Answer(1, script_, &tokenizer_, {testing::tiny_special}, stop_strings);
  }
  // Adds tokens until the answer ends.
  static std::optional<FinishReason> add(Answer& answer, const std::vector<int32_t>& tokens) {
    for (const int32_t token : tokens) {
      const auto reason = answer.add({.token = token, .logprob = 0, .top = {}});
      if (reason) return reason;
    }
    return std::nullopt;
  }

  const Tokenizer tokenizer_ = testing::tiny_tokenizer();
  Script script_;
};

TEST_F(AnswerTest, TextFollowsItsToken) {
  Answer it = answer();
  EXPECT_EQ(add(it, {0, 7, 11}), std::nullopt);
  EXPECT_THAT(script_.events, ElementsAre("0", "'a'", "7", "'ab'", "11", "'<call>'"));
}

TEST_F(AnswerTest, CharactersComeWhole) {
  Answer it = answer();
  add(it, {0, 9, 6});
  EXPECT_THAT(script_.events, ElementsAre("0", "'a'", "9", "6", "'\xE2\x82\xAC'"));
}

TEST_F(AnswerTest, AnUnfinishedCharacterIsFlushed) {
  Answer it = answer();
  add(it, {0, 9});
  it.flush();
  EXPECT_THAT(script_.events, ElementsAre("0", "'a'", "9", "'\xEF\xBF\xBD'"));
}

TEST_F(AnswerTest, AStopTokenGivesNoText) {
  Answer it = answer();
  EXPECT_EQ(add(it, {1, testing::tiny_special}), FinishReason::stop_token);
  it.flush();
  EXPECT_THAT(script_.events, ElementsAre("1", "'b'", "10"));
}

TEST_F(AnswerTest, ASpecialTokenThatDoesNotStopGivesNoTextEither) {
  Answer it(1, script_, &tokenizer_, {}, {});
  EXPECT_EQ(add(it, {testing::tiny_special, 1}), std::nullopt);
  EXPECT_THAT(script_.events, ElementsAre("10", "1", "'b'"));
}

TEST_F(AnswerTest, TextThatMayBeginAStopStringWaits) {
  Answer it = answer({"abc"});
  add(it, {2, 0, 1, 1});  // c, ab, b
  EXPECT_THAT(script_.events, ElementsAre("2", "'c'", "0", "1", "1", "'abb'"));
}

TEST_F(AnswerTest, NothingOfAStopStringIsEmitted) {
  Answer it = answer({"zz", "c c"});
  EXPECT_EQ(add(it, {7, 3, 8, 3, 2, 0}), FinishReason::stop_string);  // "ab", " ", "bc", " ", "c"
  it.flush();
  EXPECT_THAT(script_.events, ElementsAre("7", "'ab'", "3", "' '", "8", "'b'", "3", "2"));
  EXPECT_EQ(it.stop_string(), "c c");
}

TEST_F(AnswerTest, HeldBackTextIsFlushedAtAnotherEnd) {
  Answer it = answer({"abc"});
  EXPECT_EQ(add(it, {2, 7, testing::tiny_special}), FinishReason::stop_token);
  it.flush();
  EXPECT_THAT(script_.events, ElementsAre("2", "'c'", "7", "10", "'ab'"));
  EXPECT_EQ(it.stop_string(), "");
}

TEST_F(AnswerTest, WithoutATokenizerOnlyTokensCome) {
  Answer it(1, script_, nullptr, {5}, {});
  EXPECT_EQ(add(it, {1, 2, 5}), FinishReason::stop_token);
  it.flush();
  EXPECT_THAT(script_.events, ElementsAre("1", "2", "5"));
  EXPECT_THROW(Answer(1, script_, nullptr, {}, {"x"}), Error);
}

TEST_F(AnswerTest, AnEmptyStopStringIsRefused) {
  EXPECT_THROW(answer({""}), Error);
}

}  // namespace
}  // namespace qnext::engine
