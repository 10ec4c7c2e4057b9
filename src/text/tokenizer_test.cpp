// Token for token what the Hugging Face library gives, on the cases recorded from it.
#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/normalize.h"
#include "text/tokenizer_test_data.h"

namespace qnext {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::string data_folder = QNEXT_SOURCE_DIR "/tests/data/";
const std::string tiny_folder = QNEXT_SOURCE_DIR "/models/tiny-shakespeare";

const Tokenizer& qwen3() {
  static const Tokenizer tokenizer = Tokenizer::load(QNEXT_QWEN3_TOKENIZER);
  return tokenizer;
}

Tokenizer small() {
  return Tokenizer::from_json(test::small_tokenizer_json(), "small");
}

std::vector<int32_t> ids_of(const json::Value& value) {
  std::vector<int32_t> ids;
  for (const json::Value& id : value.as_array())
    ids.push_back(static_cast<int32_t>(id.as_integer()));
  return ids;
}

TEST(Tokenizer, GivesTheRecordedIdsOfQwen3) {
  const json::Value cases = json::parse_file(data_folder + "qwen3-tokenizer-cases.json");
  ASSERT_EQ(cases.as_array().size(), 50u);
  for (const json::Value& item : cases.as_array()) {
    const std::string& text = item.find("text")->as_string();
    EXPECT_EQ(qwen3().encode(text), ids_of(*item.find("ids"))) << text;
  }
}

TEST(Tokenizer, ReadsTheTinyModel) {
  const Tokenizer tokenizer = Tokenizer::load(tiny_folder);
  EXPECT_EQ(tokenizer.vocabulary_size(), 2048);
  EXPECT_EQ(tokenizer.eos_token_id(), 2045);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{2045}), "<|endoftext|>");
  const json::Value expected = json::parse_file(tiny_folder + "/expected.json");
  for (const json::Value& item : expected.as_array()) {
    const std::string& text = item.find("greedy_text")->as_string();
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
}

// tests/data/tokenizer-hard-cases.json holds tokenizers (as changes to the tiny model's, or to
// Qwen3's) and for each what the library gives for texts that were chosen to be awkward.
TEST(Tokenizer, GivesTheRecordedIdsOfHardCases) {
  const json::Value groups = json::parse_file(data_folder + "tokenizer-hard-cases.json");
  size_t count = 0;
  for (const json::Value& group : groups.as_array()) {
    const std::string& base = group.find("base")->as_string();
    json::Value definition =
        json::parse_file(base == "qwen3" ? std::string(QNEXT_QWEN3_TOKENIZER "/tokenizer.json")
                                         : tiny_folder + "/tokenizer.json");
    for (const auto& [key, value] : group.find("changes")->as_object())
      definition.as_object().set(key, value);
    if (group.find("ignore_merges")->as_bool())
      definition.as_object().set("model",
                                 test::with(*definition.find("model"), "ignore_merges", true));
    const Tokenizer tokenizer = Tokenizer::from_json(json::write(definition), base);
    for (const json::Value& item : group.find("cases")->as_array()) {
      const std::string& text = item.find("text")->as_string();
      EXPECT_EQ(tokenizer.encode(text), ids_of(*item.find("ids"))) << json::write(text, -1, true);
      EXPECT_EQ(tokenizer.encode(text, false), ids_of(*item.find("ids_special_as_text")))
          << json::write(text, -1, true);
      EXPECT_EQ(tokenizer.decode(ids_of(*item.find("ids"))), item.find("decoded")->as_string())
          << json::write(text, -1, true);
      ++count;
    }
  }
  EXPECT_GT(count, 300u);
}

TEST(Tokenizer, KnowsItsTokens) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.vocabulary_size(), 266);
  EXPECT_EQ(tokenizer.token_bytes(258), " the");
  EXPECT_EQ(tokenizer.token_id(" the"), 258);
  EXPECT_EQ(tokenizer.token_id("<s>"), 264);
  EXPECT_EQ(tokenizer.token_id("nowhere"), std::nullopt);
  EXPECT_EQ(tokenizer.token_id(""), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(264));
  EXPECT_FALSE(tokenizer.is_special(265));
  EXPECT_FALSE(tokenizer.is_special(258));
  ASSERT_EQ(tokenizer.added_tokens().size(), 2u);
  EXPECT_EQ(tokenizer.added_tokens()[1].content, "<call>");
  EXPECT_EQ(tokenizer.bos_token_id(), std::nullopt);
}

TEST(Tokenizer, IgnoresIdsWithoutAToken) {
  const Tokenizer tokenizer = small();
  for (const int32_t id : {-1, 266, INT32_MIN, INT32_MAX}) {
    EXPECT_EQ(tokenizer.token_bytes(id), "");
    EXPECT_FALSE(tokenizer.is_special(id));
    EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'a' - '!', id, 'b' - '!'}),
              tokenizer.decode(std::vector<int32_t>{'a' - '!', 'b' - '!'}));
  }
}

TEST(Tokenizer, LeavesSpecialTokensOutOnRequest) {
  const Tokenizer tokenizer = small();
  const std::vector<int32_t> ids = tokenizer.encode("<s> the<call>");
  EXPECT_THAT(ids, ElementsAre(264, 258, 265));
  EXPECT_EQ(tokenizer.decode(ids), "<s> the<call>");
  EXPECT_EQ(tokenizer.decode(ids, true), " the<call>");
}

TEST(Tokenizer, ReadsSpecialTokensAsTextOnRequest) {
  const Tokenizer tokenizer = small();
  EXPECT_THAT(tokenizer.encode("<s><call>", false), ElementsAre('<', 's', '>', 265));
  EXPECT_THAT(tokenizer.encode("<s><call>", true), ElementsAre(264, 265));
}

TEST(Tokenizer, NamesTheByteThatIsNotUtf8) {
  const Tokenizer tokenizer = small();
  for (const auto& [text, message] : std::vector<std::pair<std::string, std::string>>{
           {"abc\xFF", "the text is not valid UTF-8 at byte 3"},
           {"\xC3", "the text is not valid UTF-8 at byte 0"},
           {"0123456789\xED\xA0\x80", "the text is not valid UTF-8 at byte 10"}}) {
    try {
      tokenizer.encode(text);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.what(), message);
    }
  }
}

TEST(Tokenizer, DecodesWhatItEncoded) {
  test::RandomText random(1);
  const Tokenizer tokenizer = Tokenizer::load(tiny_folder);
  std::string storage;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = random.text();
    const std::string normal(unicode::nfc(text, storage));
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, false)), normal) << text;
    // What lies between added tokens is normalised piece by piece: "<|im_end|>" before U+0338
    // stays.
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(normal)), normal) << text;
  }
}

TEST(Tokenizer, GivesTheSameFromSeveralThreads) {
  const Tokenizer tokenizer = Tokenizer::load(tiny_folder);
  test::RandomText random(2);
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> expected;
  for (int i = 0; i < 500; ++i) {
    texts.push_back(random.text());
    expected.push_back(tokenizer.encode(texts.back()));
  }
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int& count : wrong)
    threads.emplace_back([&] {
      for (size_t i = 0; i < texts.size(); ++i) count += tokenizer.encode(texts[i]) != expected[i];
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, testing::Each(0));
}

}  // namespace
}  // namespace qnext
