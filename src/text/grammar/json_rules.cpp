#include "text/grammar/json_rules.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "text/grammar/number_automaton.h"

namespace qnext::grammar {
namespace {

// Ten levels of two spaces, five of four, eight of a tab.
constexpr int most_spaces = 20;
constexpr int most_tabs = 8;

}  // namespace

JsonRules::JsonRules(GrammarBuilder& builder, const JsonStyle& style)
    : builder_(builder), style_(style) {}

// The number is known before the body is made, which may call it.
int32_t JsonRules::make(int32_t& rule, const std::function<void(int32_t, int32_t)>& body) {
  if (rule >= 0) return rule;
  rule = builder_.rule();
  const int32_t made = rule;
  body(builder_.rule_start(made), builder_.rule_end(made));
  return made;
}

void JsonRules::line(int32_t from, int32_t to) {
  if (style_.one_line) return;
  const int32_t rule = make(line_, [&](int32_t begin, int32_t end) {
    const int32_t behind = builder_.state();
    builder_.literal(begin, "\n", behind);
    builder_.empty(behind, end);
    for (const auto& [blank, most] : {std::pair{" ", most_spaces}, {"\t", most_tabs}})
      for (int i = 0, at = behind; i < most; ++i) {
        const int32_t next = builder_.state();
        builder_.literal(at, blank, next);
        builder_.empty(next, end);
        at = next;
      }
  });
  builder_.call(from, rule, to);
}

int32_t JsonRules::string() {
  return make(string_,
              [&](int32_t from, int32_t to) { quoted(from, TextAutomaton::anything(), true, to); });
}

int32_t JsonRules::boolean() {
  return make(boolean_, [&](int32_t from, int32_t to) {
    builder_.literal(from, "true", to);
    builder_.literal(from, "false", to);
  });
}

int32_t JsonRules::number() {
  return make(number_, [&](int32_t from, int32_t to) {
    add_text(builder_, from, number_automaton({}), {.form = TextForm::plain}, to);
  });
}

int32_t JsonRules::integer() {
  return make(integer_, [&](int32_t from, int32_t to) {
    add_text(builder_, from, integer_automaton({}), {.form = TextForm::plain}, to);
  });
}

int32_t JsonRules::any_array() {
  return make(any_array_, [&](int32_t from, int32_t to) {
    const int32_t first = builder_.state();
    const int32_t more = builder_.state();
    const int32_t behind = builder_.state();
    open(from, '[', first);
    builder_.literal(first, "]", to);
    builder_.empty(first, more);
    builder_.call(more, any_value(), behind);
    comma(behind, more);
    close(behind, ']', to);
  });
}

int32_t JsonRules::any_object() {
  return make(any_object_, [&](int32_t from, int32_t to) {
    const int32_t first = builder_.state();
    const int32_t more = builder_.state();
    const int32_t key = builder_.state();
    const int32_t before = builder_.state();
    const int32_t behind = builder_.state();
    open(from, '{', first);
    builder_.literal(first, "}", to);
    builder_.empty(first, more);
    builder_.call(more, string(), key);
    colon(key, before);
    builder_.call(before, any_value(), behind);
    comma(behind, more);
    close(behind, '}', to);
  });
}

int32_t JsonRules::any_value() {
  return make(any_value_, [&](int32_t from, int32_t to) {
    builder_.literal(from, "null", to);
    for (const int32_t rule : {boolean(), number(), string(), any_array(), any_object()})
      builder_.call(from, rule, to);
  });
}

int32_t JsonRules::member(std::string_view key, int32_t value_rule) {
  int32_t rule = -1;
  return make(rule, [&](int32_t from, int32_t to) {
    const int32_t behind = builder_.state();
    const int32_t before = builder_.state();
    value(from, json::Value(key), behind);
    colon(behind, before);
    builder_.call(before, value_rule, to);
  });
}

void JsonRules::quoted(int32_t from, const TextAutomaton& texts, bool escapes, int32_t to,
                       const Counted* counted) {
  const int32_t begin = builder_.state();
  const int32_t end = builder_.state();
  const TextStyle style{.form = escapes ? TextForm::json_escapes : TextForm::json,
                        .without_tags = style_.without_tags,
                        .delimited = true};
  builder_.literal(from, "\"", begin);
  add_text(builder_, begin, texts, style, end, counted);
  builder_.literal(end, "\"", to);
}

void JsonRules::value(int32_t from, const json::Value& value, int32_t to) {
  if (value.is_string()) {
    const std::string text = value.as_string();
    quoted(from, TextAutomaton::one_of(std::span(&text, 1)), false, to);
    return;
  }
  if (value.is_array() || value.is_object()) {
    const bool is_array = value.is_array();
    int32_t at = builder_.state();
    open(from, is_array ? '[' : '{', at);
    bool is_first = true;
    const auto separate = [&] {
      if (!is_first) {
        const int32_t next = builder_.state();
        comma(at, next);
        at = next;
      }
      is_first = false;
    };
    const auto add = [&](const json::Value& part) {
      const int32_t next = builder_.state();
      this->value(at, part, next);
      at = next;
    };
    if (is_array) {
      for (const json::Value& item : value.as_array()) {
        separate();
        add(item);
      }
    } else {
      for (const auto& [key, item] : value.as_object()) {
        separate();
        add(json::Value(key));
        const int32_t next = builder_.state();
        colon(at, next);
        at = next;
        add(item);
      }
    }
    const char bracket = is_array ? ']' : '}';
    if (is_first)
      builder_.literal(at, std::string_view(&bracket, 1), to);
    else
      close(at, bracket, to);
    return;
  }
  builder_.literal(from, json::write(value), to);
  // 2.0 is the number 2.
  if (value.is_float() && std::floor(value.as_double()) == value.as_double() &&
      std::abs(value.as_double()) < 1e15)
    builder_.literal(from, json::write(json::Value(static_cast<int64_t>(value.as_double()))), to);
}

void JsonRules::colon(int32_t from, int32_t to) {
  const int32_t behind = builder_.state();
  builder_.literal(from, ":", behind);
  builder_.empty(behind, to);
  builder_.literal(behind, " ", to);
}

void JsonRules::comma(int32_t from, int32_t to) {
  const int32_t behind = builder_.state();
  builder_.literal(from, ",", behind);
  builder_.empty(behind, to);
  builder_.literal(behind, " ", to);
  line(behind, to);
}

void JsonRules::open(int32_t from, char bracket, int32_t to) {
  const int32_t behind = builder_.state();
  builder_.literal(from, std::string_view(&bracket, 1), behind);
  builder_.empty(behind, to);
  line(behind, to);
}

void JsonRules::close(int32_t from, char bracket, int32_t to) {
  const int32_t before = builder_.state();
  builder_.empty(from, before);
  line(from, before);
  builder_.literal(before, std::string_view(&bracket, 1), to);
}

}  // namespace qnext::grammar
