// Texts of an automaton as bytes of a grammar: plain UTF-8, or the inside of a JSON string.
#pragma once

#include "text/grammar/grammar.h"
#include "text/grammar/text_automaton.h"

namespace qnext::grammar {

enum class TextForm {
  plain,  // UTF-8
  // Inside a JSON string, written in one way: every character stands for itself, but for the
  // quotation mark, the backslash and control characters, which have their shortest escapes.
  json,
  // Inside a JSON string, with every escape that JSON has.
  json_escapes,
};

struct TextStyle {
  TextForm form = TextForm::json;
  // Of JSON: "</" does not occur, as "<\/" stands for it: for JSON between tags.
  bool without_tags = false;
  // What follows the texts begins with no plain character (token_trie.h), or is the end of all.
  bool delimited = false;
};

// Adds to `builder` that texts of the automaton lead from `from` to `to`. `counted`: the automaton
// is TextAutomaton::repeated(set, least, most) with these numbers (most -1: any), whose states are
// alike but for what is left to count.
struct Counted {
  int64_t least = 0;
  int64_t most = -1;
};
void add_text(GrammarBuilder& builder, int32_t from, const TextAutomaton& automaton,
              const TextStyle& style, int32_t to, const Counted* counted = nullptr);

// One text.
void add_text(GrammarBuilder& builder, int32_t from, std::string_view text, const TextStyle& style,
              int32_t to);

}  // namespace qnext::grammar
