// The body of explore(), which text_automaton.h declares and includes.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "text/grammar/text_automaton.h"

namespace qnext::grammar {

template <typename Key, typename Step, typename Accepting>
TextAutomaton explore(const Key& start, std::u32string_view alphabet, Step&& step,
                      Accepting&& accepting) {
  std::map<Key, int32_t> numbers{{start, 0}};
  std::vector<Key> keys{start};
  std::vector<TextAutomaton::State> states;
  for (size_t i = 0; i < keys.size(); ++i) {
    const Key key = keys[i];
    TextAutomaton::State state;
    state.accepting = accepting(key);
    for (const char32_t c : alphabet) {
      const std::optional<Key> next = step(key, c);
      if (!next) continue;
      const auto [place, is_new] = numbers.try_emplace(*next, static_cast<int32_t>(keys.size()));
      if (is_new) keys.push_back(*next);
      state.edges.push_back({c, c, place->second});
    }
    states.push_back(std::move(state));
  }
  return TextAutomaton(std::move(states));
}

}  // namespace qnext::grammar
