#include "text/grammar/text_automaton.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace qnext::grammar {
namespace {

using State = TextAutomaton::State;
using Edge = TextAutomaton::Edge;

constexpr char32_t last_code_point = 0x10FFFF;
constexpr char32_t first_surrogate = 0xD800;
constexpr char32_t last_surrogate = 0xDFFF;

void check_size(size_t states) {
  if (states > TextAutomaton::most_states)
    fail("it needs an automaton of more than {} states", TextAutomaton::most_states);
}

// Which states can reach an accepting one.
std::vector<bool> useful_states(const std::vector<State>& states) {
  std::vector<std::vector<int32_t>> sources(states.size());
  std::vector<int32_t> work;
  std::vector<bool> useful(states.size());
  for (size_t i = 0; i < states.size(); ++i) {
    for (const Edge& edge : states[i].edges)
      sources[static_cast<size_t>(edge.target)].push_back(static_cast<int32_t>(i));
    if (!states[i].accepting) continue;
    useful[i] = true;
    work.push_back(static_cast<int32_t>(i));
  }
  while (!work.empty()) {
    const auto state = static_cast<size_t>(work.back());
    work.pop_back();
    for (const int32_t source : sources[state]) {
      if (useful[static_cast<size_t>(source)]) continue;
      useful[static_cast<size_t>(source)] = true;
      work.push_back(source);
    }
  }
  return useful;
}

void add_edge(std::vector<Edge>& edges, const Edge& edge) {
  if (!edges.empty() && edges.back().target == edge.target && edges.back().last + 1 == edge.first)
    edges.back().last = edge.last;
  else
    edges.push_back(edge);
}

}  // namespace

const CodePointSet& all_code_points() {
  static const CodePointSet all{{0, first_surrogate - 1}, {last_surrogate + 1, last_code_point}};
  return all;
}

CodePointSet normalized(CodePointSet set) {
  std::sort(set.begin(), set.end(),
            [](const CodePoints& a, const CodePoints& b) { return a.first < b.first; });
  CodePointSet joined;
  for (const CodePoints& range : set) {
    if (!joined.empty() && range.first <= joined.back().last + 1)
      joined.back().last = std::max(joined.back().last, range.last);
    else
      joined.push_back(range);
  }
  CodePointSet result;
  for (const CodePoints& range : joined)
    for (const CodePoints& allowed : all_code_points()) {
      const CodePoints both{std::max(range.first, allowed.first),
                            std::min(range.last, allowed.last)};
      if (both.first <= both.last) result.push_back(both);
    }
  return result;
}

CodePointSet complement(const CodePointSet& set) {
  CodePointSet gaps;
  char32_t begin = 0;
  for (const CodePoints& range : set) {
    if (range.first > begin) gaps.push_back({begin, range.first - 1});
    begin = range.last + 1;
  }
  if (begin <= last_code_point) gaps.push_back({begin, last_code_point});
  return normalized(std::move(gaps));
}

TextAutomaton::TextAutomaton(std::vector<State> states) {
  check_size(states.size());
  const std::vector<bool> useful = useful_states(states);
  if (states.empty() || !useful[0]) {
    states_.resize(1);
    return;
  }
  std::vector<int32_t> numbers(states.size(), dead);
  for (size_t i = 0, next = 0; i < states.size(); ++i)
    if (useful[i]) numbers[i] = static_cast<int32_t>(next++);
  for (size_t i = 0; i < states.size(); ++i) {
    if (!useful[i]) continue;
    State& state = states_.emplace_back();
    state.accepting = states[i].accepting;
    for (const Edge& edge : states[i].edges)
      if (useful[static_cast<size_t>(edge.target)])
        add_edge(state.edges, {edge.first, edge.last, numbers[static_cast<size_t>(edge.target)]});
  }
}

TextAutomaton TextAutomaton::anything() {
  return repeated(all_code_points(), 0, std::nullopt);
}

TextAutomaton TextAutomaton::repeated(const CodePointSet& set, int64_t least,
                                      std::optional<int64_t> most) {
  const int64_t last = most.value_or(least);
  if (last >= static_cast<int64_t>(most_states))
    fail("a length of {} is more than can be counted ({})", last, most_states - 1);
  if (last < least) return {};
  std::vector<State> states(static_cast<size_t>(last) + 1);
  for (int64_t i = 0; i <= last; ++i) {
    State& state = states[static_cast<size_t>(i)];
    state.accepting = i >= least;
    if (i == last && most) break;
    for (const CodePoints& range : set)
      state.edges.push_back({range.first, range.last, static_cast<int32_t>(std::min(i + 1, last))});
  }
  return TextAutomaton(std::move(states));
}

TextAutomaton TextAutomaton::one_of(std::span<const std::string> texts) {
  std::vector<std::map<char32_t, int32_t>> children(1);
  std::vector<bool> ends(1);
  for (const std::string& text : texts) {
    size_t at = 0;
    for (size_t i = 0; i < text.size();) {
      const utf8::Character c = utf8::examine(text, i);
      QNEXT_CHECK(c.kind == utf8::Kind::valid);
      i += c.length;
      const auto next = static_cast<int32_t>(children.size());
      const auto [place, is_new] = children[at].try_emplace(c.code_point, next);
      at = static_cast<size_t>(place->second);
      if (!is_new) continue;
      children.emplace_back();
      ends.push_back(false);
    }
    ends[at] = true;
  }
  std::vector<State> states(children.size());
  for (size_t i = 0; i < states.size(); ++i) {
    states[i].accepting = ends[i];
    for (const auto& [c, target] : children[i]) states[i].edges.push_back({c, c, target});
  }
  return TextAutomaton(std::move(states));
}

// State i: the longest beginning of `text` that ends here has i code points.
TextAutomaton TextAutomaton::containing(std::string_view text) {
  std::u32string wanted;
  for (size_t i = 0; i < text.size();) {
    const utf8::Character c = utf8::examine(text, i);
    wanted += c.code_point;
    i += c.length;
  }
  std::vector<State> states(wanted.size() + 1);
  for (size_t i = 0; i < wanted.size(); ++i) {
    // Where each code point of the text leads from here; all others to the start.
    std::map<char32_t, int32_t> special;
    for (const char32_t c : wanted) {
      const std::u32string seen = wanted.substr(0, i) + c;
      size_t length = std::min(seen.size(), wanted.size());
      while (!seen.ends_with(wanted.substr(0, length))) --length;
      if (length > 0) special[c] = static_cast<int32_t>(length);
    }
    CodePointSet named;
    for (const auto& [c, target] : special) named.push_back({c, c});
    for (const CodePoints& range : complement(normalized(named)))
      states[i].edges.push_back({range.first, range.last, 0});
    for (const auto& [c, target] : special) states[i].edges.push_back({c, c, target});
    std::sort(states[i].edges.begin(), states[i].edges.end(),
              [](const Edge& a, const Edge& b) { return a.first < b.first; });
  }
  for (const CodePoints& range : all_code_points())
    states.back().edges.push_back(
        {range.first, range.last, static_cast<int32_t>(states.size()) - 1});
  states.back().accepting = true;
  return TextAutomaton(std::move(states));
}

bool TextAutomaton::empty() const {
  return !states_[0].accepting && states_[0].edges.empty();
}

int32_t TextAutomaton::next(int32_t state, char32_t c) const {
  for (const Edge& edge : states_[static_cast<size_t>(state)].edges)
    if (c >= edge.first && c <= edge.last) return edge.target;
  return dead;
}

bool TextAutomaton::accepts(std::string_view text) const {
  int32_t state = 0;
  for (size_t i = 0; i < text.size();) {
    const utf8::Character c = utf8::examine(text, i);
    if (c.kind != utf8::Kind::valid) return false;
    state = next(state, c.code_point);
    if (state == dead) return false;
    i += c.length;
  }
  return states_[static_cast<size_t>(state)].accepting;
}

// Pairs of states, reached together; either may be dead while the other goes on.
TextAutomaton TextAutomaton::combine(const TextAutomaton& other,
                                     bool (*accepting)(bool, bool)) const {
  using Pair = std::pair<int32_t, int32_t>;
  std::map<Pair, int32_t> numbers{{{0, 0}, 0}};
  std::vector<Pair> pairs{{0, 0}};
  std::vector<State> states;
  static const State nowhere;
  const auto state_of = [](const TextAutomaton& automaton, int32_t state) -> const State& {
    return state == dead ? nowhere : automaton.states_[static_cast<size_t>(state)];
  };
  for (size_t i = 0; i < pairs.size(); ++i) {
    check_size(pairs.size());
    const State& a = state_of(*this, pairs[i].first);
    const State& b = state_of(other, pairs[i].second);
    State state;
    state.accepting = accepting(a.accepting, b.accepting);
    // Between two borders neither automaton changes its mind.
    std::vector<char32_t> borders;
    for (const std::vector<Edge>* edges : {&a.edges, &b.edges})
      for (const Edge& edge : *edges) {
        borders.push_back(edge.first);
        borders.push_back(edge.last + 1);
      }
    std::sort(borders.begin(), borders.end());
    borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
    size_t in_a = 0;
    size_t in_b = 0;
    const auto target_at = [](const std::vector<Edge>& edges, size_t& at, char32_t c) {
      while (at < edges.size() && edges[at].last < c) ++at;
      return at < edges.size() && edges[at].first <= c ? edges[at].target : dead;
    };
    for (size_t j = 0; j + 1 < borders.size(); ++j) {
      const Pair next{target_at(a.edges, in_a, borders[j]), target_at(b.edges, in_b, borders[j])};
      if (next.first == dead && next.second == dead) continue;
      const auto [place, is_new] = numbers.try_emplace(next, static_cast<int32_t>(pairs.size()));
      if (is_new) pairs.push_back(next);
      add_edge(state.edges, {borders[j], borders[j + 1] - 1, place->second});
    }
    states.push_back(std::move(state));
  }
  return TextAutomaton(std::move(states));
}

TextAutomaton TextAutomaton::operator&(const TextAutomaton& other) const {
  return combine(other, [](bool a, bool b) { return a && b; });
}

TextAutomaton TextAutomaton::operator|(const TextAutomaton& other) const {
  return combine(other, [](bool a, bool b) { return a || b; });
}

TextAutomaton TextAutomaton::operator-(const TextAutomaton& other) const {
  return combine(other, [](bool a, bool b) { return a && !b; });
}

}  // namespace qnext::grammar
