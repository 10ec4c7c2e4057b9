// Masks against the plain question, asked of every token: do its bytes lead anywhere?
#include "text/grammar/token_masks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "text/grammar/answer_grammar.h"
#include "text/grammar/testing/grammar_texts.h"
#include "text/grammar/token_grammar.h"

namespace qnext::grammar {
namespace {

const Tokenizer& qwen_tokenizer() {
  static const Tokenizer tokenizer = Tokenizer::load(QNEXT_QWEN3_TOKENIZER);
  return tokenizer;
}

const TokenTrie& qwen_trie() {
  // As many rows as the models have: some ids are no tokens.
  static const TokenTrie trie(qwen_tokenizer(), 151'936);
  return trie;
}

TokenMask plain_mask(GrammarReader& reader, int32_t situation, const Tokenizer& tokenizer,
                     int32_t vocabulary, const std::vector<int32_t>& end_tokens) {
  TokenMask mask((static_cast<size_t>(vocabulary) + 31) / 32);
  for (int32_t token = 0; token < std::min(vocabulary, tokenizer.vocabulary_size()); ++token) {
    int32_t at = tokenizer.is_special(token) ? GrammarReader::dead : situation;
    for (const char byte : tokenizer.token_bytes(token))
      at = reader.next(at, static_cast<uint8_t>(byte));
    if (tokenizer.token_bytes(token).empty()) at = GrammarReader::dead;
    const bool ends = std::count(end_tokens.begin(), end_tokens.end(), token) > 0;
    if (at != GrammarReader::dead || (ends && reader.may_end(situation)))
      mask[static_cast<size_t>(token) / 32] |= uint32_t{1} << (token % 32);
  }
  return mask;
}

const char* const schemas[] = {
    "true",
    R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer",
        "minimum": 0, "maximum": 150}, "tags": {"type": "array", "items": {"enum": ["red", "green",
        "blue"]}}, "address": {"type": "object", "properties": {"street": {"type": "string",
        "maxLength": 30}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required":
        ["street"], "additionalProperties": false}}, "required": ["name", "age"],
        "additionalProperties": false})",
    R"({"type": "array", "items": {"anyOf": [{"type": "number"}, {"$ref": "#"}]}})",
    R"({"type": "string", "minLength": 100, "maxLength": 600})",
    R"({"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}, "ab": {"type":
        "string", "minLength": 2, "maxLength": 40}, "b": {"type": "string", "pattern": "^.{0,5}x?$"},
        "n": {"type": "string", "pattern": "^[^;]*$"}}, "required": ["a", "ab", "b", "n"]})",
    R"({"type": "object", "patternProperties": {"^[a-z]+$": {"format": "date-time", "type":
        "string"}}, "additionalProperties": {"type": "boolean"}})",
};

// A walk through random allowed tokens behind `text`, judged at every step.
void check_walk(const TokenTrie& trie, std::shared_ptr<const Grammar> grammar, std::string text,
                uint32_t seed, int steps) {
  const std::vector<int32_t> ends = {trie.tokenizer().eos_token_id().value_or(0)};
  GrammarReader reader(std::move(grammar));
  TokenMasks masks(trie, reader, ends);
  std::mt19937 random(seed);
  int32_t at = reader.start();
  for (const char byte : text) at = reader.next(at, static_cast<uint8_t>(byte));
  for (int i = 0; i < steps; ++i) {
    const TokenMask plain = plain_mask(reader, at, trie.tokenizer(), trie.vocabulary(), ends);
    const auto mask = masks.mask(at);
    ASSERT_TRUE(!mask || *mask == plain) << text;
    std::vector<int32_t> allowed;
    for (int32_t token = 0; token < trie.vocabulary(); ++token)
      if (plain[static_cast<size_t>(token) / 32] >> (token % 32) & 1) allowed.push_back(token);
    ASSERT_FALSE(allowed.empty());
    // Where any token may come, those may too that stand for no text.
    ASSERT_TRUE(mask || allowed.size() > 151'000u) << text;
    const int32_t token = allowed[random() % allowed.size()];
    if (token == ends[0]) break;
    const std::string_view bytes = trie.tokenizer().token_bytes(token);
    text += bytes;
    for (const char byte : bytes) at = reader.next(at, static_cast<uint8_t>(byte));
  }
}

TEST(TokenMasks, AreWhatEveryTokenSaysForItself) {
  for (const char* schema : schemas)
    for (uint32_t seed = 1; seed <= 3; ++seed) {
      SCOPED_TRACE(schema);
      check_walk(qwen_trie(), testing::schema_grammar(schema), "", seed, 25);
    }
  // Behind most of their limits, where every state is another.
  check_walk(qwen_trie(), testing::schema_grammar(schemas[1]),
             R"({"name": "x", "age": 3, "address": {"street": "123456789 123456789 12345)", 1, 6);
  check_walk(qwen_trie(), testing::schema_grammar(schemas[5]), R"({"a": ")", 1, 12);
  check_walk(qwen_trie(), testing::schema_grammar("true", {.without_tags = true}), "\"<", 1, 5);
}

TEST(TokenMasks, OfWholeAnswersToo) {
  const json::Value tools = json::parse(R"([{"function": {"name": "note", "parameters": {"type":
      "object", "properties": {"text": {"type": "string"}, "short": {"type": "string", "maxLength":
      9}}, "required": ["text", "short"]}}}])",
                                        "tools");
  const ToolSchemas schemas_of_tools(tools.as_array());
  AnswerForm form;
  form.reasoning = AnswerForm::Reasoning::possible;
  form.tools = {{"note", *tools.as_array()[0].find("function")->find("parameters"), "tools[0]"}};
  for (const CallForm calls : {CallForm::json, CallForm::xml}) {
    form.calls = calls;
    const bool is_json = calls == CallForm::json;
    const auto grammar = answer_grammar(form, schemas_of_tools);
    const std::string call = is_json ? R"(<tool_call>{"name": "note", "arguments": {"text": ")"
                                     : "<tool_call>\n<function=note>\n<parameter=text>\n";
    const std::string next = is_json ? R"(", "short": ")" : "\n</parameter>\n<parameter=short>\n";
    for (const std::string& text :
         {std::string(), std::string("<think>a"), std::string("<think>a</t"), std::string("a<tool"),
          call, call + "a<", call + "a</", call + "a</par", call + next, call + next + "12345",
          call + next + "12345678<"}) {
      SCOPED_TRACE(text);
      check_walk(qwen_trie(), grammar, text, 1, 5);
    }
  }
}

TEST(TokenMasks, TreeHoldsEveryTokenOnce) {
  const TokenTrie& trie = qwen_trie();
  std::vector<int> seen(static_cast<size_t>(trie.vocabulary()));
  std::string path;
  for (size_t i = 1; i < trie.nodes().size(); ++i) {
    const TokenTrie::Node& node = trie.nodes()[i];
    path.resize(node.depth - 1u);
    path += static_cast<char>(node.byte);
    if (node.token < 0) continue;
    ++seen[static_cast<size_t>(node.token)];
    ASSERT_EQ(path, trie.tokenizer().token_bytes(node.token));
  }
  for (const TokenTrie::Twin& twin : trie.twins()) {
    ++seen[static_cast<size_t>(twin.token)];
    ASSERT_EQ(trie.tokenizer().token_bytes(twin.token), trie.tokenizer().token_bytes(twin.other));
  }
  for (int32_t token = 0; token < trie.tokenizer().vocabulary_size(); ++token)
    EXPECT_EQ(seen[static_cast<size_t>(token)], trie.tokenizer().is_special(token) ? 0 : 1)
        << token;
}

TEST(TokenGrammar, ReadersFollowTheirAnswers) {
  const Tokenizer& tokenizer = qwen_tokenizer();
  const int32_t end = *tokenizer.eos_token_id();
  auto grammar = std::make_shared<TokenGrammar>(testing::schema_grammar(schemas[1]), qwen_trie(),
                                                std::vector<int32_t>{end});
  TokenGrammarReader reader(grammar);
  TokenGrammarReader other(grammar);
  const auto allows = [](const TokenMask& mask, int32_t token) {
    return (mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1) != 0;
  };
  const std::vector<int32_t> answer =
      tokenizer.encode(R"({"name": "Ada \"x\" é", "age": 36, "tags": ["red"]})");
  const auto masks = reader.masks(answer);
  ASSERT_EQ(masks.size(), answer.size() + 1);
  for (size_t i = 0; i < answer.size(); ++i) {
    EXPECT_TRUE(allows(*masks[i], answer[i])) << i;
    EXPECT_FALSE(allows(*masks[i], end));
    EXPECT_EQ(*reader.masks({})[0], *masks[i]);
    EXPECT_FALSE(reader.may_end());
    reader.accept(answer[i]);
  }
  EXPECT_TRUE(reader.must_end());
  EXPECT_TRUE(allows(*masks.back(), end));
  reader.accept(end);
  // A draft that may not come: nothing is said of what follows.
  const std::vector<int32_t> wrong = {answer[0], end, answer[1]};
  const auto cut = other.masks(wrong);
  EXPECT_TRUE(cut[0] && cut[1]);
  EXPECT_FALSE(cut[2] || cut[3]);
  EXPECT_THROW(other.accept(end), Error);
  EXPECT_THROW(other.accept(answer[1]), Error);
  EXPECT_NO_THROW(other.accept(answer[0]));
}

// More situations than are kept.
TEST(TokenGrammar, ForgetsAndFindsItsPlaceAgain) {
  const Tokenizer& tokenizer = qwen_tokenizer();
  const auto bracket = tokenizer.encode("[");
  ASSERT_EQ(bracket.size(), 1u);
  auto grammar = std::make_shared<TokenGrammar>(testing::schema_grammar("true"), qwen_trie(),
                                                std::vector<int32_t>{*tokenizer.eos_token_id()});
  TokenGrammarReader deep(grammar);
  for (int i = 0; i < 60'000; ++i) deep.accept(bracket[0]);
  EXPECT_GT(grammar->situations(), 50'000u);
  const auto mask = deep.masks({})[0];
  const auto number = tokenizer.encode("1")[0];
  EXPECT_TRUE(((*mask)[static_cast<size_t>(number) / 32] >> (number % 32) & 1) != 0);
  EXPECT_FALSE(deep.may_end());
}

}  // namespace
}  // namespace qnext::grammar
