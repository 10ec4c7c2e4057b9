// Answers by a grammar: well-formed whatever the model would rather say, and the same whoever else
// runs and however many drafts are made.
#include "engine/grammar_constraint.h"

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/collector.h"
#include "engine/engine.h"
#include "engine/testing/fake_backend.h"
#include "engine/testing/tiny_tokenizer.h"
#include "text/grammar/json_schema.h"

namespace qnext::engine {
namespace {

constexpr int32_t vocabulary = 264;

std::shared_ptr<const Constraint> schema_constraint(const grammar::TokenTrie& trie,
                                                    std::string_view schema) {
  const json::Value parsed = json::parse(schema, "schema");
  grammar::GrammarBuilder builder;
  grammar::JsonRules rules(builder, {});
  const int32_t rule = grammar::schema_rule(rules, parsed);
  return grammar_constraint(std::make_shared<grammar::TokenGrammar>(
      builder.finish(rule), trie, std::vector<int32_t>{testing::tiny_special}));
}

TEST(GrammarConstraint, AnswersAreWellFormedAndTheSameWithDraftsAndInABatch) {
  const Tokenizer tokenizer = testing::tiny_tokenizer();
  const grammar::TokenTrie trie(tokenizer, vocabulary);
  const auto constraint = schema_constraint(trie, R"({"type": "object", "properties": {
      "name": {"type": "string", "maxLength": 12}, "ok": {"type": "boolean"},
      "list": {"type": "array", "items": {"enum": ["abc", 1]}, "maxItems": 3}},
      "required": ["name", "list"], "additionalProperties": false})");
  std::vector<std::string> alone;
  for (const int32_t drafts : {0, 3}) {
    testing::FakeBackend backend({.vocabulary = vocabulary, .context = 2000, .acceptance = 0.5});
    Engine engine(backend, &tokenizer,
                  {.max_sequences = 8,
                   .max_speculation = 3,
                   .adapt_speculation = false,
                   .stop_tokens = std::vector<int32_t>{testing::tiny_special}});
    std::deque<Collector> answers;
    for (int i = 0; i < 24; ++i) {
      GenerationRequest request;
      request.prompt = {i % 8, 1, 2};
      request.sampling.temperature = 1;
      request.sampling.seed = static_cast<uint64_t>(i);
      request.speculate = drafts;
      request.constraint = constraint;
      engine.submit(request, answers.emplace_back());
      if (drafts == 0) engine.run();
    }
    engine.run();
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_TRUE(answers[i].finish);
      ASSERT_EQ(answers[i].finish->reason, FinishReason::stop_token) << answers[i].finish->error;
      const json::Value value = json::parse(answers[i].text, "answer");
      EXPECT_TRUE(value.find("name")->is_string());
      EXPECT_LE(value.find("list")->as_array().size(), 3u);
      if (drafts == 0)
        alone.push_back(answers[i].text);
      else
        EXPECT_EQ(answers[i].text, alone[i]);
    }
  }
}

// A vocabulary that lacks what the grammar needs ends that answer alone.
TEST(GrammarConstraint, AFaultEndsItsAnswerAlone) {
  const Tokenizer tokenizer = testing::tiny_tokenizer();
  const grammar::TokenTrie trie(tokenizer, testing::tiny_vocabulary);
  testing::FakeBackend backend({.vocabulary = testing::tiny_vocabulary});
  Engine engine(backend, &tokenizer, {.max_sequences = 2});
  GenerationRequest request;
  request.prompt = {1};
  request.max_tokens = 5;
  Collector free;
  engine.submit(request, free);
  request.constraint = schema_constraint(trie, "{}");
  Collector constrained;
  engine.submit(request, constrained);
  engine.run();
  EXPECT_EQ(free.finish->reason, FinishReason::length);
  EXPECT_EQ(constrained.finish->reason, FinishReason::error);
  EXPECT_NE(constrained.finish->error.find("no token"), std::string::npos);
  request.force_accepted = 1;
  EXPECT_THROW(engine.submit(request, free), Error);
}

}  // namespace
}  // namespace qnext::engine
