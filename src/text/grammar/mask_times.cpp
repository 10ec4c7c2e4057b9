// What masks cost: text_mask_times TOKENIZER FILE...
//
// Of each schema of the files, in the form of the JSON Schema Test Suite, and of some of tools: a
// new grammar is made ready, and three answers of random tokens that it allows are read by it, 60
// tokens each. Prints percentiles of this thread's CPU time for making a grammar, for making it
// ready, and for one token's mask where its situation is met for the first time.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <exception>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/grammar/testing/grammar_texts.h"
#include "text/grammar/token_grammar.h"

namespace qnext::grammar {
namespace {

constexpr int answers = 3;
constexpr int most_tokens = 60;

// As agents bring them.
constexpr const char* tools[] = {
    R"({"type": "object", "properties": {"command": {"type": "string"}, "timeout": {"type":
        "integer", "minimum": 1, "maximum": 600}}, "required": ["command"]})",
    R"({"type": "object", "properties": {"path": {"type": "string"}, "old": {"type": "string"},
        "new": {"type": "string"}, "all": {"type": "boolean"}}, "required": ["path", "old", "new"],
        "additionalProperties": false})",
    R"({"type": "object", "properties": {"title": {"type": "string", "maxLength": 80}, "body":
        {"type": "string", "maxLength": 2000}, "labels": {"type": "array", "items": {"enum":
        ["bug", "docs", "idea"]}, "maxItems": 3}}, "required": ["title"], "additionalProperties":
        false})",
    R"({"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength":
        30}, "mail": {"type": "string", "format": "email"}, "born": {"type": "string", "format":
        "date"}, "phone": {"type": "string", "pattern": "^\\+?[0-9 ]{6,20}$"}}, "required":
        ["name", "mail", "born", "phone"], "additionalProperties": false})",
    R"({"type": "object", "properties": {"query": {"type": "string", "pattern": "^[^;]*$"}, "tags":
        {"type": "array", "items": {"type": "string", "pattern": "^[a-z][a-z0-9-]*$"}}, "filter":
        {"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}}},
        "required": ["query", "tags", "filter"]})",
};

double seconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Times {
  std::vector<double> make, prepare, masks;
};

void measure(const std::string& schema, const TokenTrie& trie, uint32_t seed, Times& times) {
  std::shared_ptr<const Grammar> made;
  const double begin = seconds();
  try {
    made = testing::schema_grammar(schema);
  } catch (const std::exception&) {
    return;  // refused
  }
  const int32_t end = *trie.tokenizer().eos_token_id();
  const double known = seconds();
  const auto grammar = std::make_shared<TokenGrammar>(made, trie, std::vector<int32_t>{end});
  grammar->prepare();
  times.make.push_back(known - begin);
  times.prepare.push_back(seconds() - known);
  std::mt19937 random(seed);
  for (int i = 0; i < answers; ++i) {
    TokenGrammarReader reader(grammar);
    for (int step = 0; step < most_tokens; ++step) {
      const size_t before = grammar->mask_bytes();
      const double asked = seconds();
      const auto mask = reader.masks({})[0];
      const double took = seconds() - asked;
      if (grammar->mask_bytes() != before) times.masks.push_back(took);
      std::vector<int32_t> allowed;
      for (int32_t token = 0; token < trie.vocabulary(); ++token)
        if ((*mask)[static_cast<size_t>(token) / 32] >> (token % 32) & 1) allowed.push_back(token);
      const int32_t token = allowed[random() % allowed.size()];
      if (token == end) break;
      reader.accept(token);
    }
  }
}

void report(const char* what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) {
    return 1e6 * times[static_cast<size_t>(share * static_cast<double>(times.size() - 1))];
  };
  fmt::print("{}: {} times, median {:.1f} us, p90 {:.1f}, p99 {:.1f}, worst {:.1f}\n", what,
             times.size(), at(0.5), at(0.9), at(0.99), at(1));
}

void report(const char* of, const Times& times) {
  fmt::print("{}\n", of);
  report("  a grammar", times.make);
  report("  made ready", times.prepare);
  report("  a new mask", times.masks);
}

}  // namespace
}  // namespace qnext::grammar

int main(int count, char** names) {
  using namespace qnext::grammar;
  const qnext::Tokenizer tokenizer = qnext::Tokenizer::load(names[1]);
  const double begin = seconds();
  const TokenTrie trie(tokenizer, 151'936);
  fmt::print("tree of the vocabulary: {:.1f} ms, {} nodes, {} of tokens that are not plain\n",
             1e3 * (seconds() - begin), trie.nodes().size(), trie.other_nodes().size());
  Times of_tools;
  for (const char* schema : tools) measure(schema, trie, 1, of_tools);
  report("tools", of_tools);
  Times of_suite;
  for (int i = 2; i < count; ++i) {
    const qnext::json::Value groups = qnext::json::parse_file(names[i]);
    for (const qnext::json::Value& group : groups.as_array())
      measure(qnext::json::write(*group.find("schema")), trie, 1, of_suite);
  }
  if (count > 2) report("suite", of_suite);
}
