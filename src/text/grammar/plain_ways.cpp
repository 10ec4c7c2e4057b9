#include "text/grammar/plain_ways.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "text/grammar/token_trie.h"

namespace qnext::grammar {
namespace {

// More exceptions are no exceptions.
constexpr size_t most_exceptions = 32;
constexpr int32_t unknown = -1;
constexpr int32_t open = -2;  // on the way that is followed just now
constexpr int32_t mixed = -3;

// Where all plain characters lead, but for those that are named.
struct Way {
  int32_t target = TextAutomaton::dead;
  std::vector<uint8_t> except = {};
};

// What is beyond ASCII decides where the others should lead.
std::optional<Way> way_of(const TextAutomaton::State& state) {
  const CodePointSet beyond{{0x80, 0xD7FF}, {0xE000, 0x10FFFF}};
  Way way;
  size_t covered = 0;
  size_t wanted = 0;
  for (const CodePoints& range : beyond) wanted += range.last - range.first + 1;
  for (const TextAutomaton::Edge& edge : state.edges)
    for (const CodePoints& range : beyond) {
      const char32_t first = std::max(edge.first, range.first);
      const char32_t last = std::min(edge.last, range.last);
      if (first > last) continue;
      if (covered > 0 && edge.target != way.target) return std::nullopt;
      way.target = edge.target;
      covered += last - first + 1;
    }
  if (covered != 0 && covered != wanted) return std::nullopt;
  char32_t next = 0;  // the first of ASCII that is not looked at
  const auto look = [&](char32_t end, int32_t target) {
    for (; next < std::min<char32_t>(end, 0x80); ++next)
      if (target != way.target && is_plain(next)) way.except.push_back(static_cast<uint8_t>(next));
  };
  for (const TextAutomaton::Edge& edge : state.edges) {
    look(edge.first, TextAutomaton::dead);
    look(edge.last + 1, edge.target);
  }
  look(0x80, TextAutomaton::dead);
  if (way.except.size() > most_exceptions) return std::nullopt;
  return way;
}

}  // namespace

std::vector<Grammar::Plain> plain_ways(const TextAutomaton& automaton) {
  const size_t count = automaton.states().size();
  std::vector<std::optional<Way>> ways;
  for (const TextAutomaton::State& state : automaton.states()) ways.push_back(way_of(state));
  // How many may follow each other where none is an exception.
  std::vector<int32_t> most(count, unknown);
  std::vector<size_t> path;
  for (size_t start = 0; start < count; ++start) {
    size_t at = start;
    int32_t known = unknown;
    for (path.clear(); known == unknown;) {
      if (most[at] != unknown) {
        known = most[at] == open ? similar_bytes : most[at];
      } else if (!ways[at] || !ways[at]->except.empty()) {
        known = most[at] = mixed;
      } else if (ways[at]->target == TextAutomaton::dead) {
        known = most[at] = 0;
      } else {
        most[at] = open;
        path.push_back(at);
        at = static_cast<size_t>(ways[at]->target);
      }
    }
    for (; !path.empty(); path.pop_back()) {
      if (known != mixed) known = std::min(known + 1, similar_bytes);
      most[path.back()] = known;
    }
  }
  std::vector<Grammar::Plain> plains(count);
  for (size_t i = 0; i < count; ++i) {
    if (!ways[i] || ways[i]->target == TextAutomaton::dead) continue;
    const int32_t behind = most[static_cast<size_t>(ways[i]->target)];
    if (behind == mixed) continue;
    plains[i] = {std::min(behind + 1, similar_bytes), std::move(ways[i]->except)};
  }
  return plains;
}

}  // namespace qnext::grammar
