#include "text/grammar/regular_expression.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/utf8.h"

namespace qnext::grammar {
namespace {

constexpr char32_t no_character = 0xFFFFFFFF;
constexpr int64_t most_repeats = 10'000;
constexpr size_t most_nodes = 200'000;
constexpr int deepest_group = 200;

const CodePointSet digits{{'0', '9'}};
const CodePointSet word_characters{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePointSet white_space{
    {0x09, 0x0D},     {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
    {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const CodePointSet line_ends{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

// Thompson's automaton: fragments with one way in and one out.
class Nondeterministic {
 public:
  enum class When { always, at_start, at_end };
  struct Step {
    When when = When::always;
    int32_t target = 0;
  };
  struct Node {
    std::vector<Step> steps;  // without a character
    CodePointSet set;         // with one
    int32_t target = -1;
  };
  struct Fragment {
    int32_t in = 0;
    int32_t out = 0;
  };

  int32_t node() {
    if (nodes_.size() >= most_nodes) fail("it is too long, or repeats too much");
    nodes_.emplace_back();
    return static_cast<int32_t>(nodes_.size()) - 1;
  }
  void step(int32_t from, int32_t to, When when = When::always) {
    nodes_[static_cast<size_t>(from)].steps.push_back({when, to});
  }
  Fragment one_of(CodePointSet set) {
    const Fragment fragment{node(), node()};
    nodes_[static_cast<size_t>(fragment.in)].set = std::move(set);
    nodes_[static_cast<size_t>(fragment.in)].target = fragment.out;
    return fragment;
  }
  Fragment nothing(When when = When::always) {
    const Fragment fragment{node(), node()};
    step(fragment.in, fragment.out, when);
    return fragment;
  }

  TextAutomaton determinize(const Fragment& whole) const;

 private:
  std::vector<int32_t> closure(std::vector<int32_t> nodes, bool at_start, bool at_end) const;

  std::vector<Node> nodes_;
};

std::vector<int32_t> Nondeterministic::closure(std::vector<int32_t> work, bool at_start,
                                               bool at_end) const {
  std::set<int32_t> seen(work.begin(), work.end());
  while (!work.empty()) {
    const int32_t at = work.back();
    work.pop_back();
    for (const Step& next : nodes_[static_cast<size_t>(at)].steps) {
      if (next.when == When::at_start && !at_start) continue;
      if (next.when == When::at_end && !at_end) continue;
      if (seen.insert(next.target).second) work.push_back(next.target);
    }
  }
  return {seen.begin(), seen.end()};
}

// The start is a state of its own, as only there ^ holds.
TextAutomaton Nondeterministic::determinize(const Fragment& whole) const {
  std::map<std::vector<int32_t>, int32_t> numbers;
  std::vector<std::vector<int32_t>> sets{closure({whole.in}, true, false)};
  std::vector<TextAutomaton::State> states;
  for (size_t i = 0; i < sets.size(); ++i) {
    if (sets.size() > TextAutomaton::most_states)
      fail("it needs an automaton of more than {} states", TextAutomaton::most_states);
    const std::vector<int32_t> set = sets[i];
    TextAutomaton::State state;
    const std::vector<int32_t> at_end = closure(set, i == 0, true);
    state.accepting = std::binary_search(at_end.begin(), at_end.end(), whole.out);
    std::vector<char32_t> borders;
    for (const int32_t at : set)
      for (const CodePoints& range : nodes_[static_cast<size_t>(at)].set) {
        borders.push_back(range.first);
        borders.push_back(range.last + 1);
      }
    std::sort(borders.begin(), borders.end());
    borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
    for (size_t j = 0; j + 1 < borders.size(); ++j) {
      std::vector<int32_t> targets;
      for (const int32_t at : set) {
        const Node& node = nodes_[static_cast<size_t>(at)];
        const bool holds = std::any_of(node.set.begin(), node.set.end(), [&](const auto& range) {
          return range.first <= borders[j] && borders[j] <= range.last;
        });
        if (holds) targets.push_back(node.target);
      }
      if (targets.empty()) continue;
      std::vector<int32_t> next = closure(std::move(targets), false, false);
      const auto [place, is_new] = numbers.try_emplace(next, static_cast<int32_t>(sets.size()));
      if (is_new) sets.push_back(std::move(next));
      state.edges.push_back({borders[j], borders[j + 1] - 1, place->second});
    }
    states.push_back(std::move(state));
  }
  return TextAutomaton(std::move(states));
}

class Parser {
 public:
  explicit Parser(std::string_view pattern) {
    for (size_t i = 0; i < pattern.size();) {
      const utf8::Character c = utf8::examine(pattern, i);
      if (c.kind != utf8::Kind::valid) fail("it is not UTF-8");
      pattern_ += c.code_point;
      i += c.length;
    }
  }

  TextAutomaton parse(bool whole) {
    using When = Nondeterministic::When;
    Fragment all = alternatives(0);
    if (at_ < pattern_.size()) fail("')' closes no group");
    const Fragment around{automaton_.node(), automaton_.node()};
    automaton_.step(around.in, all.in, whole ? When::at_start : When::always);
    automaton_.step(all.out, around.out, whole ? When::at_end : When::always);
    if (!whole) {
      for (const int32_t end : {around.in, around.out}) {
        const Fragment any = automaton_.one_of(all_code_points());
        automaton_.step(end, any.in);
        automaton_.step(any.out, end);
      }
    }
    return automaton_.determinize(around);
  }

 private:
  using Fragment = Nondeterministic::Fragment;

  char32_t peek(size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : no_character;
  }
  bool take(char32_t c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  char32_t take_any() {
    if (at_ == pattern_.size()) fail("it ends too early");
    return pattern_[at_++];
  }

  Fragment alternatives(int depth) {
    if (depth > deepest_group) fail("its groups are nested too deeply");
    const Fragment all{automaton_.node(), automaton_.node()};
    do {
      Fragment sequence = automaton_.nothing();
      while (at_ < pattern_.size() && peek() != '|' && peek() != ')') {
        const Fragment next = repeated(depth);
        automaton_.step(sequence.out, next.in);
        sequence.out = next.out;
      }
      automaton_.step(all.in, sequence.in);
      automaton_.step(sequence.out, all.out);
    } while (take('|'));
    return all;
  }

  // An atom and what is said of how often. A repeated atom is parsed once for each time.
  Fragment repeated(int depth) {
    const size_t begin = at_;
    const bool is_anchor = peek() == '^' || peek() == '$';
    Fragment one = atom(depth);
    const size_t end = at_;
    int64_t least = 1;
    int64_t most = 1;  // -1: any number
    if (!quantifier(least, most)) return one;
    if (is_anchor) fail("a quantifier stands behind '{}'", static_cast<char>(pattern_[begin]));
    const size_t after = at_;
    const auto again = [&] {
      at_ = begin;
      const Fragment copy = atom(depth);
      QNEXT_CHECK(at_ == end);
      return copy;
    };
    Fragment all = automaton_.nothing();
    Fragment last = one;
    const auto append = [&](const Fragment& copy) {
      automaton_.step(all.out, copy.in);
      all.out = copy.out;
      last = copy;
    };
    for (int64_t i = 0; i < least; ++i) append(i == 0 ? one : again());
    if (most < 0 && least > 0) {
      automaton_.step(last.out, last.in);
    } else if (most < 0) {
      const int32_t loop = automaton_.node();
      automaton_.step(all.out, loop);
      automaton_.step(loop, one.in);
      automaton_.step(one.out, loop);
      all.out = loop;
    } else {
      const int32_t out = automaton_.node();
      for (int64_t i = least; i < most; ++i) {
        automaton_.step(all.out, out);
        append(i == 0 ? one : again());
      }
      automaton_.step(all.out, out);
      all.out = out;
    }
    at_ = after;
    return all;
  }

  bool quantifier(int64_t& least, int64_t& most) {
    if (take('*')) {
      least = 0;
      most = -1;
    } else if (take('+')) {
      most = -1;
    } else if (take('?')) {
      least = 0;
    } else if (!counts(least, most)) {
      return false;
    }
    take('?');
    if (most >= 0 && most < least) fail("a quantifier's numbers are out of order");
    if (std::max(least, most) > most_repeats) fail("it repeats more than {} times", most_repeats);
    int64_t ignored = 0;
    if (peek() == '*' || peek() == '+' || peek() == '?' || counts(ignored, ignored))
      fail("two quantifiers follow each other");
    return true;
  }

  // {m}, {m,} or {m,n}; anything else in braces stands for itself.
  bool counts(int64_t& least, int64_t& most) {
    size_t i = 1;
    const auto number = [&](int64_t& value) {
      const size_t begin = i;
      for (value = 0; peek(i) >= '0' && peek(i) <= '9'; ++i)
        value = std::min(value * 10 + static_cast<int64_t>(peek(i) - '0'), most_repeats + 1);
      return i > begin;
    };
    int64_t low = 0;
    int64_t high = 0;
    if (peek() != '{' || !number(low)) return false;
    high = low;
    if (peek(i) == ',') {
      ++i;
      if (!number(high)) high = -1;
    }
    if (peek(i) != '}') return false;
    at_ += i + 1;
    least = low;
    most = high;
    return true;
  }

  Fragment atom(int depth) {
    const char32_t c = take_any();
    switch (c) {
      case '^':
        return automaton_.nothing(Nondeterministic::When::at_start);
      case '$':
        return automaton_.nothing(Nondeterministic::When::at_end);
      case '.':
        return automaton_.one_of(complement(line_ends));
      case '[':
        return automaton_.one_of(character_class());
      case '(':
        return group(depth);
      case '*':
      case '+':
      case '?':
        fail("'{}' has nothing to repeat", static_cast<char>(c));
      case '\\':
        if (peek() == 'b' || peek() == 'B') fail("\\b and \\B cannot be enforced");
        return automaton_.one_of(escape(false));
      default:
        return automaton_.one_of(normalized({{c, c}}));
    }
  }

  Fragment group(int depth) {
    if (take('?')) {
      const bool behind = peek() == '<' && (peek(1) == '=' || peek(1) == '!');
      if (peek() == '=' || peek() == '!' || behind) fail("look-around cannot be enforced");
      if (take('<')) {
        while (take_any() != '>') {
        }
      } else if (!take(':')) {
        fail("a group begins with '(?' and is none that can be read");
      }
    }
    const Fragment inside = alternatives(depth + 1);
    if (!take(')')) fail("a group is not closed");
    return inside;
  }

  char32_t hexadecimal(int length) {
    char32_t value = 0;
    for (int i = 0; i < length; ++i) {
      const char32_t c = take_any();
      const bool is_letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      if (!is_letter && (c < '0' || c > '9')) fail("an escape lacks hexadecimal digits");
      value = value * 16 + (is_letter ? (c | 0x20) - 'a' + 10 : c - '0');
    }
    return value;
  }

  char32_t unicode_escape() {
    if (take('{')) {
      char32_t value = 0;
      while (!take('}')) {
        value = value * 16 + hexadecimal(1);
        if (value > 0x10FFFF) fail("an escape names no character");
      }
      return value;
    }
    const char32_t first = hexadecimal(4);
    if (first >= 0xD800 && first < 0xDC00 && peek() == '\\' && peek(1) == 'u') {
      at_ += 2;
      const char32_t second = hexadecimal(4);
      if (second >= 0xDC00 && second < 0xE000)
        return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
      fail("half of a surrogate pair names no character");
    }
    if (first >= 0xD800 && first < 0xE000) fail("half of a surrogate pair names no character");
    return first;
  }

  // What follows a backslash.
  CodePointSet escape(bool in_class) {
    const char32_t c = take_any();
    const auto only = [](char32_t code) { return normalized({{code, code}}); };
    switch (c) {
      case 'd':
        return digits;
      case 'D':
        return complement(digits);
      case 'w':
        return word_characters;
      case 'W':
        return complement(word_characters);
      case 's':
        return white_space;
      case 'S':
        return complement(white_space);
      case 'n':
        return only('\n');
      case 'r':
        return only('\r');
      case 't':
        return only('\t');
      case 'f':
        return only('\f');
      case 'v':
        return only('\v');
      case 'b':
        return only('\b');  // in a class
      case 'x':
        return only(hexadecimal(2));
      case 'u':
        return only(unicode_escape());
      case 'c': {
        const char32_t letter = take_any() | 0x20;
        if (letter < 'a' || letter > 'z') fail("\\c needs a letter");
        return only(letter - 'a' + 1);
      }
      case '0':
        if (peek() >= '0' && peek() <= '9') fail("octal escapes cannot be read");
        return only(0);
      default:
        break;
    }
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c >= '1' && c <= '9') fail("backreferences cannot be enforced");
    if (c == 'p' || c == 'P') fail("\\p{{...}} cannot be enforced here: name the ranges");
    if (is_letter || (in_class && c == 'B'))
      fail("the escape \\{} is unknown", static_cast<char>(c));
    return only(c);
  }

  CodePointSet character_class() {
    const bool negated = take('^');
    CodePointSet set;
    while (!take(']')) {
      const CodePointSet first = class_atom();
      const bool is_one = first.size() == 1 && first[0].first == first[0].last;
      if (peek() == '-' && peek(1) != ']' && peek(1) != no_character) {
        ++at_;
        const CodePointSet last = class_atom();
        const bool range = is_one && last.size() == 1 && last[0].first == last[0].last;
        if (!range) {
          // As in \w-\s: the dash stands for itself.
          set.push_back({'-', '-'});
          set.insert(set.end(), last.begin(), last.end());
        } else if (last[0].first < first[0].first) {
          fail("a range of a class is out of order");
        } else {
          set.push_back({first[0].first, last[0].last});
          continue;
        }
      }
      set.insert(set.end(), first.begin(), first.end());
    }
    set = normalized(std::move(set));
    return negated ? complement(set) : set;
  }

  CodePointSet class_atom() {
    const char32_t c = take_any();
    if (c == '\\') return escape(true);
    return normalized({{c, c}});
  }

  std::u32string pattern_;
  size_t at_ = 0;
  Nondeterministic automaton_;
};

}  // namespace

TextAutomaton regular_expression(std::string_view pattern, bool whole) {
  return Parser(pattern).parse(whole);
}

}  // namespace qnext::grammar
