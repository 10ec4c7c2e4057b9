#include "text/grammar/answer_grammar.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/grammar/json_rules.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/regular_expression.h"
#include "text/grammar/token_trie.h"

namespace qnext::grammar {
namespace {

constexpr std::string_view think = "<think>";
constexpr std::string_view think_end = "</think>";
constexpr std::string_view call = "<tool_call>";
constexpr std::string_view call_end = "</tool_call>";
constexpr std::string_view parameter_end = "\n</parameter>\n";

class AnswerBuilder {
 public:
  AnswerBuilder(const AnswerForm& form, const ToolSchemas& schemas)
      : form_(form),
        schemas_(schemas),
        content_rules_(builder_, {}),
        call_rules_(builder_, {.one_line = true, .without_tags = form.calls == CallForm::xml}) {}

  std::shared_ptr<const Grammar> build() {
    const int32_t root = builder_.rule();
    const int32_t to = builder_.rule_end(root);
    int32_t from = builder_.rule_start(root);
    const bool is_free = form_.content.kind == ContentForm::Kind::free;
    const int32_t body = builder_.state();
    if (form_.reasoning != AnswerForm::Reasoning::begun) builder_.empty(from, body);
    if (form_.reasoning != AnswerForm::Reasoning::none) {
      int32_t begin = from;
      if (form_.reasoning == AnswerForm::Reasoning::possible) {
        begin = builder_.state();
        builder_.literal(from, think, begin);
      }
      const int32_t behind = builder_.state();
      until(begin, think_end, behind, is_free);
      lines(behind, body);
    }
    if (is_free) {
      free_text(body, to);
      return builder_.finish(root);
    }
    if (form_.content.kind != ContentForm::Kind::none) content(body, to);
    if (!form_.tools.empty()) {
      const int32_t behind = builder_.state();
      const int32_t tag = builder_.state();
      builder_.literal(body, call, tag);
      builder_.call(tag, calls(), behind);
      builder_.empty(behind, to);
      if (form_.several_calls) {
        const int32_t next = builder_.state();
        lines(behind, next);
        builder_.literal(next, call, tag);
      }
    }
    return builder_.finish(root);
  }

 private:
  // None, one or two line ends.
  void lines(int32_t from, int32_t to) {
    const int32_t first = builder_.state();
    builder_.empty(from, to);
    builder_.literal(from, "\n", first);
    builder_.empty(first, to);
    builder_.literal(first, "\n", to);
  }

  // What stands between a tag and the JSON of a call.
  void edge(int32_t from, int32_t to) {
    builder_.empty(from, to);
    builder_.literal(from, "\n", to);
  }

  // Any bytes up to the first `tag`, and it. Returns the states that are inside: all but the first
  // have read the beginning of a tag.
  std::vector<int32_t> until(int32_t from, std::string_view tag, int32_t to, bool is_free) {
    std::vector<int32_t> inside;
    for (size_t i = 0; i < tag.size(); ++i) inside.push_back(builder_.state());
    builder_.empty(from, inside[0]);
    if (is_free) builder_.set_free(inside[0]);
    for (size_t i = 0; i < tag.size(); ++i) {
      // Runs of bytes that lead to the same state.
      int first = 0;
      const auto target = [&](int byte) {
        const std::string seen = std::string(tag.substr(0, i)) + static_cast<char>(byte);
        size_t length = std::min(seen.size(), tag.size());
        while (!seen.ends_with(tag.substr(0, length))) --length;
        return length == tag.size() ? to : inside[length];
      };
      for (int byte = 1; byte <= 256; ++byte) {
        if (byte < 256 && target(byte) == target(first)) continue;
        builder_.bytes(inside[i], static_cast<uint8_t>(first), static_cast<uint8_t>(byte - 1),
                       target(first));
        first = byte;
      }
      // Tags begin with "<" and nowhere else have it.
      Grammar::Plain plain{similar_bytes};
      const auto expected = static_cast<uint8_t>(tag[i]);
      if (is_plain(expected)) plain.except = {expected};
      builder_.set_plain(inside[i], std::move(plain));
    }
    return inside;
  }

  // Text that may end at any place, and calls within.
  void free_text(int32_t from, int32_t to) {
    const int32_t tag = builder_.state();
    for (const int32_t state : until(from, call, tag, true)) builder_.empty(state, to);
    const int32_t behind = builder_.state();
    builder_.call(tag, calls(), behind);
    builder_.empty(behind, to);
    if (form_.several_calls) builder_.empty(behind, from);
  }

  void content(int32_t from, int32_t to) {
    const ContentForm& form = form_.content;
    switch (form.kind) {
      case ContentForm::Kind::schema:
        return builder_.call(from, schema_rule(content_rules_, form.schema, form.path), to);
      case ContentForm::Kind::object:
        return builder_.call(from, content_rules_.any_object(), to);
      case ContentForm::Kind::expression:
        return add_text(builder_, from, regular_expression(form.expression, true),
                        {.form = TextForm::plain, .delimited = true}, to);
      case ContentForm::Kind::choice:
        return add_text(builder_, from, TextAutomaton::one_of(form.choices),
                        {.form = TextForm::plain}, to);
      case ContentForm::Kind::free:
      case ContentForm::Kind::none:
        break;
    }
  }

  // What follows "<tool_call>", up to the end of "</tool_call>".
  int32_t calls() {
    const int32_t rule = builder_.rule();
    const int32_t from = builder_.rule_start(rule);
    const int32_t to = builder_.rule_end(rule);
    for (const AnswerTool& tool : form_.tools)
      form_.calls == CallForm::json ? json_call(tool, from, to) : xml_call(tool, from, to);
    return rule;
  }

  int32_t then(int32_t from, std::string_view text) {
    const int32_t next = builder_.state();
    builder_.literal(from, text, next);
    return next;
  }

  void json_call(const AnswerTool& tool, int32_t from, int32_t to) {
    const auto state = [this] { return builder_.state(); };
    int32_t at = state();
    edge(from, at);
    const auto step = [&](auto&& add) {
      const int32_t next = state();
      add(at, next);
      at = next;
    };
    step([&](int32_t a, int32_t b) { call_rules_.open(a, '{', b); });
    at = then(at, "\"name\"");
    step([&](int32_t a, int32_t b) { call_rules_.colon(a, b); });
    step([&](int32_t a, int32_t b) { call_rules_.value(a, json::Value(tool.name), b); });
    step([&](int32_t a, int32_t b) { call_rules_.comma(a, b); });
    at = then(at, "\"arguments\"");
    step([&](int32_t a, int32_t b) { call_rules_.colon(a, b); });
    const int32_t arguments = schema_rule(call_rules_, tool.parameters, tool.path);
    step([&](int32_t a, int32_t b) { builder_.call(a, arguments, b); });
    step([&](int32_t a, int32_t b) { call_rules_.close(a, '}', b); });
    step([&](int32_t a, int32_t b) { edge(a, b); });
    builder_.literal(at, call_end, to);
  }

  void xml_call(const AnswerTool& tool, int32_t from, int32_t to) {
    check_name(tool, tool.name);
    int32_t at = then(from, "\n<function=" + tool.name + ">\n");
    for (const SchemaMember& member : schema_members(call_rules_, tool.parameters, tool.path)) {
      check_name(tool, member.key);
      const int32_t next = builder_.state();
      const int32_t value = then(at, "<parameter=" + member.key + ">\n");
      if (!member.is_required) builder_.empty(at, next);
      const int32_t end = builder_.state();
      if (schemas_.is_text(tool.name, member.key)) {
        if (!member.text)
          fail(
              "{}/properties/{}: a string of this kind cannot be enforced in the XML form of calls",
              tool.path, member.key);
        add_text(builder_, value, *member.text - TextAutomaton::containing("</parameter>"),
                 {.form = TextForm::plain}, end);
      } else {
        builder_.call(value, member.rule, end);
      }
      builder_.literal(end, parameter_end, next);
      at = next;
    }
    builder_.literal(at, "</function>\n</tool_call>", to);
  }

  static void check_name(const AnswerTool& tool, const std::string& name) {
    if (name.empty() || name.find_first_of(">\n\r\t ") != std::string::npos)
      fail("{}: the name '{}' cannot be written in the XML form of calls", tool.path, name);
  }

  const AnswerForm& form_;
  const ToolSchemas& schemas_;
  GrammarBuilder builder_;
  JsonRules content_rules_;
  JsonRules call_rules_;
};

}  // namespace

CallForm call_form(std::string_view chat_template) {
  return chat_template.find("<function=") != std::string_view::npos ? CallForm::xml
                                                                    : CallForm::json;
}

std::shared_ptr<const Grammar> answer_grammar(const AnswerForm& form, const ToolSchemas& schemas) {
  return AnswerBuilder(form, schemas).build();
}

json::Value relaxed_parameters(const json::Value& parameters) {
  json::Object properties;
  const json::Value* declared = parameters.find("properties");
  if (declared && declared->is_object())
    for (const auto& [key, schema] : declared->as_object()) {
      const json::Value* type = schema.find("type");
      const bool is_text = type && *type == json::Value("string");
      properties.set(key, is_text ? json::Object{{"type", "string"}} : json::Object{});
    }
  return json::Object{{"type", "object"}, {"properties", std::move(properties)}};
}

}  // namespace qnext::grammar
