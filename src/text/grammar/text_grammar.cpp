#include "text/grammar/text_grammar.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/grammar/plain_ways.h"
#include "text/utf8.h"

namespace qnext::grammar {
namespace {

struct ByteRange {
  uint8_t first = 0;
  uint8_t last = 0;
  bool operator==(const ByteRange&) const = default;
  bool operator<(const ByteRange& other) const {
    return first != other.first ? first < other.first : last < other.last;
  }
};
using ByteSet = std::vector<ByteRange>;
using Sequence = std::vector<ByteSet>;

constexpr std::string_view short_escapes = "\"\\/\b\f\n\r\t";
constexpr std::string_view short_letters = "\"\\/bfnrt";

ByteSet one(char c) {
  return {{static_cast<uint8_t>(c), static_cast<uint8_t>(c)}};
}

// A digit of base 16 in both cases.
ByteSet hexadecimal(uint32_t first, uint32_t last) {
  ByteSet set;
  const auto add = [&](char zero, uint32_t from, uint32_t to) {
    set.push_back({static_cast<uint8_t>(static_cast<uint32_t>(zero) + from),
                   static_cast<uint8_t>(static_cast<uint32_t>(zero) + to)});
  };
  if (first < 10) add('0', first, std::min(last, 9u));
  if (last >= 10) {
    const uint32_t from = std::max(first, 10u) - 10;
    add('A', from, last - 10);
    add('a', from, last - 10);
  }
  return set;
}

// Numbers from first to last, written in `digits` digits of base 2^bits, as sequences of ranges of
// digits: each range of numbers is cut where the digits behind the leading one do not span all.
template <typename Emit>
void split(uint32_t first, uint32_t last, int digits, int bits,
           std::vector<std::pair<uint32_t, uint32_t>>& leading, Emit&& emit) {
  if (digits == 0) return emit(leading);
  const int shift = bits * (digits - 1);
  const uint32_t rest = (uint32_t{1} << shift) - 1;
  const auto go = [&](uint32_t from, uint32_t to) {
    leading.emplace_back(from >> shift, to >> shift);
    split(from & rest, to & rest, digits - 1, bits, leading, emit);
    leading.pop_back();
  };
  if (first >> shift == last >> shift) return go(first, last);
  if ((first & rest) != 0) {
    go(first, first | rest);
    first = (first | rest) + 1;
  }
  uint32_t end = last;
  if ((last & rest) != rest) end = (last & ~rest) - 1;
  if (first <= end && (first & rest) == 0 && end + 1 > first) go(first, end);
  if (end != last) go(last & ~rest, last);
}

class Writer {
 public:
  Writer(GrammarBuilder& builder, const TextStyle& style, const TextAutomaton& automaton,
         const Counted* counted)
      : builder_(builder), style_(style), automaton_(automaton), counted_(counted) {}

  void write(int32_t from, int32_t to) {
    const bool tags = style_.without_tags && style_.form != TextForm::plain;
    const size_t count = automaton_.states().size();
    for (size_t i = 0; i < count * (tags ? 2 : 1); ++i) places_.push_back(builder_.state());
    builder_.empty(from, places_[0]);
    for (size_t i = 0; i < places_.size(); ++i) {
      const TextAutomaton::State& state = automaton_.states()[i % count];
      if (state.accepting) builder_.empty(places_[i], to);
      for (const TextAutomaton::Edge& edge : state.edges) add_edge(i, edge, i >= count, tags);
    }
    if (counted_) tell_similar();
    if (style_.delimited) tell_plain();
  }

 private:
  // States come twice where tags are kept out: behind "<", from `count` on, and elsewhere.
  void add_edge(size_t from, const TextAutomaton::Edge& edge, bool behind_less, bool tags) {
    if (!tags) return add_range(from, edge.first, edge.last, edge.target, true);
    const auto count = static_cast<int32_t>(automaton_.states().size());
    char32_t begin = edge.first;
    for (const char32_t special : {U'/', U'<'}) {
      if (special < begin || special > edge.last) continue;
      if (begin < special) add_range(from, begin, special - 1, edge.target, true);
      if (special == '/') {
        add_range(from, '/', '/', edge.target, !behind_less);
        if (behind_less && style_.form == TextForm::json)
          add_sequence(from, {one('\\'), one('/')}, edge.target);
      } else {
        add_sequence(from, {one('<')}, edge.target + count);
        if (style_.form == TextForm::json_escapes) add_escapes(from, '<', '<', edge.target);
      }
      begin = special + 1;
    }
    if (begin <= edge.last) add_range(from, begin, edge.last, edge.target, true);
  }

  // `plainly`: the characters may stand for themselves.
  void add_range(size_t from, char32_t first, char32_t last, int32_t target, bool plainly) {
    if (style_.form == TextForm::plain) return add_utf8(from, first, last, target);
    if (plainly) {
      const CodePointSet themselves{{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
      for (const CodePoints& range : themselves) {
        const char32_t begin = std::max(first, range.first);
        const char32_t end = std::min(last, range.last);
        if (begin <= end) add_utf8(from, begin, end, target);
      }
    }
    if (style_.form == TextForm::json_escapes) return add_escapes(from, first, last, target);
    // What has to be escaped.
    for (char32_t c = first; c <= std::min<char32_t>(last, '\\'); ++c) {
      const bool needs = c < 0x20 || c == '"' || c == '\\';
      if (!needs) continue;
      const size_t place = short_escapes.find(static_cast<char>(c));
      if (place != std::string_view::npos)
        add_sequence(from, {one('\\'), one(short_letters[place])}, target);
      else
        add_hexadecimal(from, {}, c, c, target);
    }
  }

  void add_escapes(size_t from, char32_t first, char32_t last, int32_t target) {
    for (size_t i = 0; i < short_escapes.size(); ++i) {
      const auto c = static_cast<char32_t>(static_cast<uint8_t>(short_escapes[i]));
      if (first <= c && c <= last) add_sequence(from, {one('\\'), one(short_letters[i])}, target);
    }
    if (first <= 0xFFFF) add_hexadecimal(from, {}, first, std::min<char32_t>(last, 0xFFFF), target);
    if (last > 0xFFFF) add_pairs(from, std::max<char32_t>(first, 0x10000), last, target);
  }

  // \uXXXX, behind `before`.
  void add_hexadecimal(size_t from, const Sequence& before, char32_t first, char32_t last,
                       int32_t target) {
    std::vector<std::pair<uint32_t, uint32_t>> leading;
    split(first, last, 4, 4, leading, [&](const auto& digits) {
      Sequence sequence = before;
      sequence.push_back(one('\\'));
      sequence.push_back(one('u'));
      for (const auto& [low, high] : digits) sequence.push_back(hexadecimal(low, high));
      add_sequence(from, sequence, target);
    });
  }

  // Surrogate pairs.
  void add_pairs(size_t from, char32_t first, char32_t last, int32_t target) {
    const auto add = [&](uint32_t high_first, uint32_t high_last, uint32_t low_first,
                         uint32_t low_last) {
      std::vector<std::pair<uint32_t, uint32_t>> leading;
      split(high_first, high_last, 4, 4, leading, [&](const auto& digits) {
        Sequence high{one('\\'), one('u')};
        for (const auto& [low, up] : digits) high.push_back(hexadecimal(low, up));
        add_hexadecimal(from, high, low_first, low_last, target);
      });
    };
    const auto high = [](char32_t c) { return 0xD800 + ((c - 0x10000) >> 10); };
    const auto low = [](char32_t c) { return 0xDC00 + ((c - 0x10000) & 0x3FF); };
    uint32_t begin = high(first);
    uint32_t end = high(last);
    if (begin == end) return add(begin, end, low(first), low(last));
    if (low(first) != 0xDC00) add(begin, begin, low(first), 0xDFFF), ++begin;
    if (low(last) != 0xDFFF) add(end, end, 0xDC00, low(last)), --end;
    if (begin <= end) add(begin, end, 0xDC00, 0xDFFF);
  }

  void add_utf8(size_t from, char32_t first, char32_t last, int32_t target) {
    struct Length {
      char32_t first, last;
      int bytes;
      uint8_t mark;
    };
    static constexpr std::array<Length, 5> lengths{{{0, 0x7F, 1, 0},
                                                    {0x80, 0x7FF, 2, 0xC0},
                                                    {0x800, 0xD7FF, 3, 0xE0},
                                                    {0xE000, 0xFFFF, 3, 0xE0},
                                                    {0x10000, 0x10FFFF, 4, 0xF0}}};
    for (const Length& length : lengths) {
      const char32_t begin = std::max(first, length.first);
      const char32_t end = std::min(last, length.last);
      if (begin > end) continue;
      if (length.bytes == 1) {
        add_sequence(from, {{{static_cast<uint8_t>(begin), static_cast<uint8_t>(end)}}}, target);
        continue;
      }
      std::vector<std::pair<uint32_t, uint32_t>> leading;
      split(begin, end, length.bytes, 6, leading, [&](const auto& digits) {
        Sequence sequence;
        for (size_t i = 0; i < digits.size(); ++i) {
          const uint32_t mark = i == 0 ? length.mark : 0x80;
          sequence.push_back({{static_cast<uint8_t>(mark | digits[i].first),
                               static_cast<uint8_t>(mark | digits[i].second)}});
        }
        add_sequence(from, sequence, target);
      });
    }
  }

  // Ends of sequences that go the same way are made once.
  void add_sequence(size_t from, const Sequence& sequence, int32_t target) {
    int32_t at = places_[static_cast<size_t>(target)];
    for (size_t i = sequence.size(); i-- > 1;) {
      const auto [place, is_new] = ends_.try_emplace({at, sequence[i]}, 0);
      if (is_new) {
        place->second = builder_.state();
        for (const ByteRange& range : sequence[i])
          builder_.bytes(place->second, range.first, range.last, at);
        made_ends_.push_back(&*place);
      }
      at = place->second;
    }
    for (const ByteRange& range : sequence[0])
      builder_.bytes(places_[from], range.first, range.last, at);
  }

  // Of the states of a count, each that is far from where something changes goes the way of the
  // first such.
  void tell_similar() {
    const auto count = static_cast<int64_t>(automaton_.states().size());
    // The first state that counts like this one for the next bytes.
    const auto alike = [&](int64_t state) {
      const int64_t first_free = std::max<int64_t>(counted_->least, 1);
      if (counted_->least - state > similar_bytes) return std::min<int64_t>(state, 1);
      const bool far = counted_->most < 0 || counted_->most - first_free > similar_bytes;
      const bool far_from_end = counted_->most < 0 || counted_->most - state > similar_bytes;
      if (state >= first_free && far && far_from_end) return first_free;
      return state;
    };
    const auto similar_place = [&](int64_t place) {
      return alike(place % count) + place / count * count;
    };
    std::unordered_map<int32_t, int32_t> others;
    for (size_t i = 0; i < places_.size(); ++i) {
      const int64_t other = similar_place(static_cast<int64_t>(i));
      if (other != static_cast<int64_t>(i))
        others[places_[i]] = places_[static_cast<size_t>(other)];
    }
    // Those that go on to others come first.
    for (const Ends::value_type* end : made_ends_) {
      const auto goes_on = others.find(end->first.first);
      if (goes_on == others.end()) continue;
      const auto other = ends_.find({goes_on->second, end->first.second});
      if (other != ends_.end()) others[end->second] = other->second;
    }
    for (const auto& [state, other] : others) builder_.set_similar(state, other);
  }

  void tell_plain() {
    const std::vector<Grammar::Plain> plains = plain_ways(automaton_);
    for (size_t i = 0; i < places_.size(); ++i)
      if (const Grammar::Plain& plain = plains[i % plains.size()]; plain.most > 0)
        builder_.set_plain(places_[i], plain);
  }

  GrammarBuilder& builder_;
  const TextStyle& style_;
  const TextAutomaton& automaton_;
  const Counted* counted_;
  std::vector<int32_t> places_;  // of the automaton's states
  // States that read one of a set of bytes and go on to another state.
  using Ends = std::map<std::pair<int32_t, ByteSet>, int32_t>;
  Ends ends_;
  std::vector<const Ends::value_type*> made_ends_;
};

}  // namespace

void add_text(GrammarBuilder& builder, int32_t from, const TextAutomaton& automaton,
              const TextStyle& style, int32_t to, const Counted* counted) {
  if (automaton.empty()) return;
  Writer(builder, style, automaton, counted).write(from, to);
}

void add_text(GrammarBuilder& builder, int32_t from, std::string_view text, const TextStyle& style,
              int32_t to) {
  const std::string whole(text);
  add_text(builder, from, TextAutomaton::one_of(std::span(&whole, 1)), style, to);
}

}  // namespace qnext::grammar
