// Each fault in a tokenizer.json gives one clear error, and each variant that means the same loads.
#include "text/tokenizer_definition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "text/tokenizer_test_data.h"

namespace qnext {
namespace {

using json::Array;
using json::Object;
using json::Value;
using test::with;
using testing::HasSubstr;

const Value& base() {
  static const Value value = test::small_tokenizer();
  return value;
}

Value with_model(std::string_view key, Value value) {
  return with(base(), "model", with(*base().find("model"), key, std::move(value)));
}

Value vocabulary() {
  return *base().find("model")->find("vocab");
}

TokenizerDefinition read(const Value& root, std::string_view config = {}) {
  return read_tokenizer_definition(json::write(root), "t.json", config);
}

std::string error_of_text(const std::string& text, std::string_view config = {}) {
  try {
    read_tokenizer_definition(text, "t.json", config);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "accepted";
}
std::string error_of(const Value& root, std::string_view config = {}) {
  return error_of_text(json::write(root), config);
}

Value added(Array tokens) {
  return with(base(), "added_tokens", std::move(tokens));
}
Object token(int id, std::string_view content) {
  return {{"id", id}, {"content", content}};
}

TEST(TokenizerDefinition, ReadsTheSmallOne) {
  const TokenizerDefinition definition = read(base());
  EXPECT_EQ(definition.tokens.size(), 266u);
  EXPECT_EQ(definition.tokens[258], " the");
  EXPECT_EQ(definition.tokens[264], "");
  EXPECT_EQ(definition.merges.size(), 8u);
  EXPECT_TRUE(definition.nfc);
  EXPECT_FALSE(definition.ignore_merges);
  ASSERT_EQ(definition.added.size(), 2u);
  EXPECT_TRUE(definition.added[0].special);
}

TEST(TokenizerDefinition, RefusesWhatIsNoJson) {
  const std::string whole = test::small_tokenizer_json();
  EXPECT_THAT(error_of_text(""), HasSubstr("t.json"));
  EXPECT_THAT(error_of_text("{"), HasSubstr("t.json"));
  for (size_t size = 1; size < whole.size(); size += 37)
    EXPECT_THAT(error_of_text(whole.substr(0, size)), HasSubstr("t.json")) << size;
}

TEST(TokenizerDefinition, RefusesWrongKinds) {
  EXPECT_THAT(error_of_text("[]"), HasSubstr("expected an object"));
  EXPECT_THAT(error_of_text("{}"), HasSubstr("\"model\" is missing"));
  EXPECT_THAT(error_of(with(base(), "model", 1)), HasSubstr("model: expected an object"));
  EXPECT_THAT(error_of(with_model("vocab", Array{})), HasSubstr("model.vocab: expected an object"));
  EXPECT_THAT(error_of(with_model("merges", Object{})),
              HasSubstr("model.merges: expected an array"));
  EXPECT_THAT(error_of(with_model("merges", Array{1})), HasSubstr("model.merges[0]"));
  EXPECT_THAT(error_of(with_model("merges", Array{Array{1, 2}})), HasSubstr("model.merges[0]"));
  EXPECT_THAT(error_of(with_model("vocab", with(vocabulary(), "a", "x"))),
              HasSubstr("model.vocab \"a\": expected an id"));
  EXPECT_THAT(error_of(with_model("vocab", with(vocabulary(), "a", 1.5))), HasSubstr("\"a\""));
  EXPECT_THAT(error_of(with_model("vocab", with(vocabulary(), "a", -1))),
              HasSubstr("out of range"));
  EXPECT_THAT(error_of(with(base(), "added_tokens", Object{})), HasSubstr("added_tokens"));
  EXPECT_THAT(error_of(added({Object{{"id", 264}}})), HasSubstr("\"content\" is missing"));
  EXPECT_THAT(error_of(added({with(token(264, "x"), "special", "yes")})),
              HasSubstr("added_tokens.special"));
}

TEST(TokenizerDefinition, RefusesBadIds) {
  EXPECT_THAT(error_of(with_model("vocab", with(vocabulary(), "zz", 5))),
              HasSubstr("id 5 is given to"));
  EXPECT_THAT(error_of(added({token(264, "<x>"), token(266, "<y>")})),
              HasSubstr("no token has id 265"));
  EXPECT_THAT(error_of(with_model("vocab", with(vocabulary(), "aa", 2'000'000'000))),
              HasSubstr("no token has id 259"));
  EXPECT_THAT(error_of(added({token(264, "x"), token(264, "y")})),
              HasSubstr("id 264 is given to \"x\" and to \"y\""));
  EXPECT_THAT(error_of(added({token(264, "x"), token(265, "x")})),
              HasSubstr("\"x\" has two ids, 264 and 265"));
  EXPECT_THAT(error_of(added({token(200, "<x>")})), HasSubstr("id 200 is given to"));
  EXPECT_THAT(error_of(added({token(264, "in")})), HasSubstr("but model.vocab gives it id 262"));
  EXPECT_THAT(error_of(added({token(264, "")})), HasSubstr("empty"));
  EXPECT_THAT(error_of(added({token(264, std::string(1025, 'x'))})), HasSubstr("longer than 1024"));
}

TEST(TokenizerDefinition, RefusesBadTokensAndMerges) {
  EXPECT_THAT(
      error_of(with(with_model("vocab", with(vocabulary(), "a b", 264)), "added_tokens", Array{})),
      HasSubstr("\"a b\" (id 264) is not written in the byte-level alphabet"));
  EXPECT_THAT(error_of(with_model("merges", Array{"ab"})), HasSubstr("model.merges[0]: \"ab\""));
  EXPECT_THAT(error_of(with_model("merges", Array{"a b c"})), HasSubstr("model.merges[0]"));
  EXPECT_THAT(error_of(with_model("merges", Array{"t h", "qq r"})),
              HasSubstr("model.merges[1]: \"qq\" is not in model.vocab"));
  EXPECT_THAT(error_of(with_model("merges", Array{"q r"})),
              HasSubstr("\"qr\" is not in model.vocab"));
  EXPECT_THAT(error_of(with_model("merges", Array{Array{"a"}})), HasSubstr("expected two tokens"));
}

TEST(TokenizerDefinition, RefusesWhatItDoesNotDo) {
  EXPECT_THAT(error_of(with_model("type", "WordPiece")), HasSubstr("only BPE"));
  EXPECT_THAT(error_of(with_model("dropout", 0.1)), HasSubstr("dropout"));
  EXPECT_THAT(error_of(with_model("end_of_word_suffix", "</w>")), HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(error_of(with(base(), "normalizer", Object{{"type", "NFKC"}})),
              HasSubstr("\"NFKC\""));
  EXPECT_THAT(error_of(with(base(), "pre_tokenizer", nullptr)), HasSubstr("pre_tokenizer is null"));
  EXPECT_THAT(error_of(with(base(), "pre_tokenizer", Object{{"type", "Metaspace"}})),
              HasSubstr("\"Metaspace\""));
  EXPECT_THAT(error_of(with(base(), "pre_tokenizer", test::pre_tokenizer("\\p{L}+|\\d"))),
              HasSubstr("the expression \"\\\\p{L}+|\\\\d\" is not supported"));
  EXPECT_THAT(error_of(with(base(), "decoder", nullptr)), HasSubstr("decoder"));
  EXPECT_THAT(error_of(with(base(), "decoder", Object{{"type", "Fuse"}})), HasSubstr("\"Fuse\""));
  EXPECT_THAT(error_of(with(base(), "post_processor", Object{{"type", "BertProcessing"}})),
              HasSubstr("\"BertProcessing\""));
  const Object bos{{"SpecialToken", Object{{"id", "<s>"}, {"type_id", 0}}}};
  EXPECT_THAT(error_of(with(base(), "post_processor",
                            Object{{"type", "TemplateProcessing"}, {"single", Array{bos}}})),
              HasSubstr("adds tokens to every text"));
}

TEST(TokenizerDefinition, AcceptsVariantsThatMeanTheSame) {
  EXPECT_FALSE(read(with(base(), "normalizer", nullptr)).nfc);
  const Object nfc{{"type", "NFC"}};
  EXPECT_TRUE(
      read(with(base(), "normalizer", Object{{"type", "Sequence"}, {"normalizers", Array{nfc}}}))
          .nfc);
  EXPECT_FALSE(
      read(with(base(), "normalizer", Object{{"type", "Sequence"}, {"normalizers", Array{}}})).nfc);
  EXPECT_TRUE(read(with_model("ignore_merges", true)).ignore_merges);
  read(with_model("dropout", 0.0));
  read(with_model("byte_fallback", true));
  const Object byte_level{{"type", "ByteLevel"}};
  const Object text{{"Sequence", Object{{"id", "A"}, {"type_id", 0}}}};
  const Object harmless{{"type", "TemplateProcessing"}, {"single", Array{text}}};
  read(with(base(), "post_processor",
            Object{{"type", "Sequence"}, {"processors", Array{byte_level, harmless}}}));
  Array pairs;
  for (const Value& merge : base().find("model")->find("merges")->as_array()) {
    const std::string& both = merge.as_string();
    pairs.push_back(Array{both.substr(0, both.find(' ')), both.substr(both.find(' ') + 1)});
  }
  const auto merges = read(with_model("merges", pairs)).merges;
  ASSERT_EQ(merges.size(), 8u);
  EXPECT_EQ(merges[2].result, 258);
  // An added token that the vocabulary has too, under the same id, in plain text.
  const Value both = with_model("vocab", with(with(vocabulary(), "<s>", 264), "\u2581 x", 265));
  EXPECT_EQ(read(with(both, "added_tokens", Array{token(264, "<s>"), token(265, "\u2581 x")}))
                .added.size(),
            2u);
}

TEST(TokenizerDefinition, ReadsTheConfig) {
  const TokenizerDefinition definition = read(base(), R"({
    "added_tokens_decoder": {"265": {"content": "<call>", "special": true},
                             "266": {"content": "<new>"}},
    "eos_token": {"content": "<s>"}, "bos_token": null, "pad_token": "in",
    "add_bos_token": true})");
  EXPECT_EQ(definition.eos, 264);
  EXPECT_EQ(definition.bos, std::nullopt);
  EXPECT_EQ(definition.pad, 262);
  ASSERT_EQ(definition.added.size(), 3u);
  EXPECT_TRUE(definition.added[1].special);
  EXPECT_EQ(definition.added[2].content, "<new>");
}

TEST(TokenizerDefinition, RefusesBadConfigs) {
  EXPECT_THAT(error_of(base(), "{"), HasSubstr("tokenizer_config.json"));
  EXPECT_THAT(error_of(base(), "[]"), HasSubstr("tokenizer_config.json: expected an object"));
  EXPECT_THAT(error_of(base(), R"({"eos_token": "gone"})"),
              HasSubstr("eos_token \"gone\" is no token"));
  EXPECT_THAT(error_of(base(), R"({"eos_token": 7})"), HasSubstr("eos_token"));
  EXPECT_THAT(error_of(base(), R"({"bos_token": "<s>", "add_bos_token": true})"),
              HasSubstr("add_bos_token"));
  EXPECT_THAT(error_of(base(), R"({"added_tokens_decoder": {"x": {"content": "y"}}})"),
              HasSubstr("\"x\" is no id"));
  EXPECT_THAT(error_of(base(), R"({"added_tokens_decoder": {"264": {"content": "other"}}})"),
              HasSubstr("id 264 is given to \"<s>\" and to \"other\""));
}

}  // namespace
}  // namespace qnext
