// The grammar of a whole answer of the family: reasoning, then text, JSON or tool calls, in the
// forms that answer_parser.h reads.
//
// Reasoning and text of no form are free: any token may come, until a tag has begun. Once
// "<tool_call>" stands in the text, what follows is a call of a tool that there is, with arguments
// by its schema, in the form that the model was taught:
//
//   <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>                          json
//   <tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>      xml
//
// In the XML form a parameter that its schema calls a string is written as it is, and any other as
// JSON, as tool_call_reader.h reads them; parameters that the schema does not name are not written.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/grammar/grammar.h"
#include "text/tool_call_reader.h"

namespace qnext::grammar {

enum class CallForm { json, xml };

// The form that a chat template teaches; json where it teaches none.
CallForm call_form(std::string_view chat_template);

struct AnswerTool {
  std::string name;
  json::Value parameters;  // a schema of objects
  std::string path;        // how errors name the schema
};

// What the text of an answer must be.
struct ContentForm {
  enum class Kind { free, schema, object, expression, choice, none };
  Kind kind = Kind::free;
  json::Value schema;                     // Kind::schema
  std::string path;                       // how errors name it
  std::string expression;                 // Kind::expression: of the whole text
  std::vector<std::string> choices = {};  // Kind::choice
};

struct AnswerForm {
  enum class Reasoning {
    none,
    possible,  // the answer may begin with "<think>"
    begun,     // the prompt ends inside it
  };
  Reasoning reasoning = Reasoning::none;
  ContentForm content;  // Kind::none: there must be calls
  std::vector<AnswerTool> tools = {};
  CallForm calls = CallForm::json;
  bool several_calls = true;
};

// Throws Error naming the schema and the place in it that cannot be enforced.
std::shared_ptr<const Grammar> answer_grammar(const AnswerForm& form, const ToolSchemas& schemas);

// A schema that holds for every object, and in which parameters that are plain strings still are:
// for tools whose own schema cannot be enforced.
json::Value relaxed_parameters(const json::Value& parameters);

}  // namespace qnext::grammar
