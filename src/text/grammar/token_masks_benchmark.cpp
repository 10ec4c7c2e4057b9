// Masks over the vocabulary of Qwen3: an answer read token by token, by a grammar that is new (each
// state is met for the first time) and by one that others have read by before.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "text/grammar/json_schema.h"
#include "text/grammar/token_grammar.h"

namespace qnext::grammar {
namespace {

constexpr const char* schema = R"({"type": "object", "properties": {"name": {"type": "string"},
  "age": {"type": "integer", "minimum": 0, "maximum": 150}, "mail": {"type": "string", "format":
  "email"}, "bio": {"type": "string", "maxLength": 400}, "tags": {"type": "array", "items":
  {"enum": ["red", "green", "blue"]}}, "friends": {"type": "array", "items": {"$ref": "#"}}},
  "required": ["name", "age"], "additionalProperties": false})";
constexpr const char* answer = R"({"name": "Ada Lovelace", "age": 36, "mail": "ada@example.org",
  "bio": "She wrote the first program for a machine that was never built, and said what it might do
 beyond numbers; \"weave algebraic patterns\" were her words.", "tags": ["red", "blue"],
  "friends": [{"name": "Charles Babbage", "age": 79}, {"name": "Mary Somerville", "age": 91,
  "friends": []}]})";

std::shared_ptr<TokenGrammar> make_grammar(const TokenTrie& trie) {
  const json::Value parsed = json::parse(schema, "schema");
  GrammarBuilder builder;
  JsonRules rules(builder, {});
  const int32_t rule = schema_rule(rules, parsed);
  return std::make_shared<TokenGrammar>(builder.finish(rule), trie, std::vector<int32_t>{0});
}

void masks(benchmark::State& state) {
  static const Tokenizer tokenizer = Tokenizer::load(QNEXT_QWEN3_TOKENIZER);
  static const TokenTrie trie(tokenizer, 151'936);
  const bool is_known = state.range(0) != 0;
  std::string text = answer;
  std::erase(text, '\n');
  std::string spaced;
  for (const char c : text)
    if (c != ' ' || spaced.empty() || spaced.back() != ' ') spaced += c;
  const std::vector<int32_t> tokens = tokenizer.encode(spaced);
  auto grammar = make_grammar(trie);
  std::vector<double> all;
  double whole = 0;
  for (auto step : state) {
    if (!is_known) grammar = make_grammar(trie);
    TokenGrammarReader reader(grammar);
    for (const int32_t token : tokens) {
      const auto begin = std::chrono::steady_clock::now();
      benchmark::DoNotOptimize(reader.masks({}));
      reader.accept(token);
      all.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
              .count());
      whole += all.back();
    }
  }
  std::sort(all.begin(), all.end());
  state.counters["mean_us"] = whole / static_cast<double>(all.size());
  state.counters["median_us"] = all[all.size() / 2];
  state.counters["p99_us"] = all[all.size() * 99 / 100];
  state.counters["worst_us"] = all.back();
  state.counters["MB"] = static_cast<double>(grammar->mask_bytes()) / 1e6;
}
BENCHMARK(masks)->ArgName("known")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void compile(benchmark::State& state) {
  static const Tokenizer tokenizer = Tokenizer::load(QNEXT_QWEN3_TOKENIZER);
  static const TokenTrie trie(tokenizer, 151'936);
  for (auto step : state) benchmark::DoNotOptimize(make_grammar(trie));
}
BENCHMARK(compile)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace qnext::grammar
