// The rules that all grammars of JSON share: white space, values of any kind, one given value.
//
// White space is what models and libraries write: none, a space, or one or two line ends and up to
// 32 spaces or tabs, behind an opening bracket, behind a comma and before a closing bracket; none
// or a space behind a colon. So a model cannot write white space for ever.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/json.h"
#include "text/grammar/grammar.h"
#include "text/grammar/text_grammar.h"

namespace qnext::grammar {

class JsonRules {
 public:
  // `between_tags`: strings never hold "</" (TextStyle::without_tags). The builder must outlive it.
  JsonRules(GrammarBuilder& builder, bool between_tags);

  GrammarBuilder& builder() { return builder_; }

  // Rules, each made when it is first asked for.
  int32_t space();
  int32_t string();
  int32_t boolean();
  int32_t number();
  int32_t integer();
  int32_t any_array();
  int32_t any_object();
  int32_t any_value();
  // "key": value
  int32_t member(std::string_view key, int32_t value_rule);

  // Texts between quotation marks. `escapes`: with every escape that JSON has.
  void quoted(int32_t from, const TextAutomaton& texts, bool escapes, int32_t to,
              const Counted* counted = nullptr);
  // One value, however white space lies in it.
  void value(int32_t from, const json::Value& value, int32_t to);
  // A colon and what may stand behind it; a comma; the space before a closing bracket and it.
  void colon(int32_t from, int32_t to);
  void comma(int32_t from, int32_t to);
  void open(int32_t from, char bracket, int32_t to);
  void close(int32_t from, char bracket, int32_t to);

 private:
  int32_t make(int32_t& rule, const std::function<void(int32_t from, int32_t to)>& body);

  GrammarBuilder& builder_;
  bool between_tags_;
  int32_t space_ = -1;
  int32_t string_ = -1;
  int32_t boolean_ = -1;
  int32_t number_ = -1;
  int32_t integer_ = -1;
  int32_t any_array_ = -1;
  int32_t any_object_ = -1;
  int32_t any_value_ = -1;
};

}  // namespace qnext::grammar
