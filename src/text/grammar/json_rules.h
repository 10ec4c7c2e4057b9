// The rules that all grammars of JSON share: white space, values of any kind, one given value.
//
// White space is what models and libraries write: none or a space behind a colon and a comma and,
// unless all is on one line, a line end with up to 20 spaces or 8 tabs behind an opening bracket,
// behind a comma and before a closing bracket. Two such runs never meet, and there is none inside a
// value but between the parts of lists and objects: a model cannot spend an answer on white space.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/json.h"
#include "text/grammar/grammar.h"
#include "text/grammar/text_grammar.h"

namespace qnext::grammar {

struct JsonStyle {
  bool one_line = false;
  // Strings never hold "</": TextStyle::without_tags.
  bool without_tags = false;
};

class JsonRules {
 public:
  // The builder must outlive it.
  JsonRules(GrammarBuilder& builder, const JsonStyle& style);

  GrammarBuilder& builder() { return builder_; }

  // Rules, each made when it is first asked for.
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
  // A colon, a comma, an opening bracket, and white space behind it; white space and a closing one.
  void colon(int32_t from, int32_t to);
  void comma(int32_t from, int32_t to);
  void open(int32_t from, char bracket, int32_t to);
  void close(int32_t from, char bracket, int32_t to);

 private:
  int32_t make(int32_t& rule, const std::function<void(int32_t from, int32_t to)>& body);

  // A line end and an indentation, where there may be any.
  void line(int32_t from, int32_t to);

  GrammarBuilder& builder_;
  JsonStyle style_;
  int32_t line_ = -1;
  int32_t string_ = -1;
  int32_t boolean_ = -1;
  int32_t number_ = -1;
  int32_t integer_ = -1;
  int32_t any_array_ = -1;
  int32_t any_object_ = -1;
  int32_t any_value_ = -1;
};

}  // namespace qnext::grammar
