// Grammars over bytes: rules whose bodies are automata that read bytes and call other rules. Calls
// may recurse, as values of JSON do; what a grammar accepts is read by a stack of such automata
// (grammar_reader.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace qnext::grammar {

struct Grammar {
  struct ByteEdge {
    uint8_t first = 0;
    uint8_t last = 0;
    int32_t target = 0;
  };
  // Reads a text of the rule, then goes on at the target.
  struct Call {
    int32_t rule = 0;
    int32_t target = 0;
  };
  struct State {
    std::vector<ByteEdge> bytes;
    std::vector<int32_t> empty;  // edges that read nothing
    std::vector<Call> calls;
    bool is_end = false;  // of its rule
    // Any token may follow: nothing is constrained while the reader is in this state alone.
    bool is_free = false;
    // Within the next `similar_bytes` bytes this state goes the way of that one.
    int32_t similar = -1;
    int32_t plain = -1;  // Grammar::plains
  };
  // What a state does with plain characters (text/grammar/token_trie.h), where that can be said in
  // short: from here `most` of them may be read, whichever they are, and not one more, unless the
  // first is one of `except`, of which nothing is said. No rule but the root ends behind them.
  struct Plain {
    int32_t most = 0;
    std::vector<uint8_t> except = {};  // ASCII
  };
  struct Rule {
    int32_t start = 0;
    int32_t end = 0;
  };

  std::vector<State> states;
  std::vector<Rule> rules;
  std::vector<Plain> plains;
  int32_t root = 0;
};

// Longer tokens use neither Grammar::State::similar nor Grammar::State::plain; so many plain
// characters are as good as any number.
constexpr int32_t similar_bytes = 160;

class GrammarBuilder {
 public:
  // More states than that: Error.
  static constexpr size_t most_states = 1'000'000;

  int32_t state();
  // A rule whose body is still to be made between rule_start and rule_end.
  int32_t rule();
  int32_t rule_start(int32_t rule) const { return rule_at(rule).start; }
  int32_t rule_end(int32_t rule) const { return rule_at(rule).end; }

  void bytes(int32_t from, uint8_t first, uint8_t last, int32_t to);
  void empty(int32_t from, int32_t to);
  void call(int32_t from, int32_t rule, int32_t to);
  void literal(int32_t from, std::string_view text, int32_t to);
  void set_free(int32_t state);
  void set_similar(int32_t state, int32_t other);
  void set_plain(int32_t state, Grammar::Plain plain);

  // Drops what leads nowhere. Throws Error where no text satisfies `root`, or where a rule calls
  // itself before it has read anything.
  std::shared_ptr<const Grammar> finish(int32_t root);

 private:
  const Grammar::Rule& rule_at(int32_t rule) const {
    return grammar_.rules[static_cast<size_t>(rule)];
  }
  Grammar::State& at(int32_t state) { return grammar_.states[static_cast<size_t>(state)]; }

  Grammar grammar_;
};

}  // namespace qnext::grammar
