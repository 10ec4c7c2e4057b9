// Sets of texts as deterministic automata over code points: what a pattern, a length, a range of
// numbers or a list of keys allows. They can be combined exactly: both, either, one but not the
// other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qnext::grammar {

// Inclusive.
struct CodePoints {
  char32_t first = 0;
  char32_t last = 0;
  bool operator==(const CodePoints&) const = default;
};

// Ascending, apart from each other.
using CodePointSet = std::vector<CodePoints>;

// All Unicode scalar values: no surrogates.
const CodePointSet& all_code_points();
// Sorts and joins what touches; keeps scalar values only.
CodePointSet normalized(CodePointSet set);
CodePointSet complement(const CodePointSet& set);

class TextAutomaton {
 public:
  static constexpr int32_t dead = -1;
  // More states than that: Error. A mask is found in any of them at the same speed; what is bounded
  // is the time and memory of making them.
  static constexpr size_t most_states = 100'000;

  struct Edge {
    char32_t first = 0;
    char32_t last = 0;
    int32_t target = dead;
  };
  struct State {
    std::vector<Edge> edges;  // ascending, apart from each other; what is not named is dead
    bool accepting = false;
  };

  // No text at all, not even the empty one.
  TextAutomaton() : states_(1) {}
  // State 0 is the start. States that cannot lead to an accepting one are dropped.
  explicit TextAutomaton(std::vector<State> states);

  static TextAutomaton anything();
  // least to most code points of the set; most absent: any number. Throws Error where that needs
  // too many states.
  static TextAutomaton repeated(const CodePointSet& set, int64_t least,
                                std::optional<int64_t> most);
  // Valid UTF-8, each.
  static TextAutomaton one_of(std::span<const std::string> texts);
  // Texts that hold this one.
  static TextAutomaton containing(std::string_view text);

  const std::vector<State>& states() const { return states_; }
  bool empty() const;  // accepts nothing
  bool accepts(std::string_view utf8) const;
  int32_t next(int32_t state, char32_t c) const;

  TextAutomaton operator&(const TextAutomaton& other) const;
  TextAutomaton operator|(const TextAutomaton& other) const;
  TextAutomaton operator-(const TextAutomaton& other) const;

 private:
  TextAutomaton combine(const TextAutomaton& other, bool (*accepting)(bool, bool)) const;

  std::vector<State> states_;
};

// The automaton whose states are what `step` can reach from `start`: for automata that are easier
// told by a rule than listed. Key is ordered; step(key, c) gives the next key or nothing; only
// code points of `alphabet` are tried, one by one.
template <typename Key, typename Step, typename Accepting>
TextAutomaton explore(const Key& start, std::u32string_view alphabet, Step&& step,
                      Accepting&& accepting);

}  // namespace qnext::grammar

#include "text/grammar/text_automaton_explore.h"
