#include "server/answer_form.h"

#include <algorithm>
#include <array>
#include <utility>

#include "server/grammars.h"
#include "text/answer_parser.h"
#include "text/grammar/answer_grammar.h"
#include "text/utf8.h"

namespace qnext::server {
namespace {

using grammar::AnswerForm;
using grammar::ContentForm;

[[noreturn]] void refuse_schema(const std::string& problem, const std::string& field) {
  throw ApiError(400, problem, "invalid_schema", field);
}

// --- what the content must be -----------------------------------------------------------------

const json::Value& schema_at(const Fields& fields, const char* name) {
  const json::Value& schema = fields.required(name);
  if (!schema.is_object() && !schema.is_bool()) fields.refuse(name, "must be a JSON schema");
  return schema;
}

ContentForm read_response_format(const Fields& fields) {
  ContentForm form;
  const json::Value* value = fields.find("response_format");
  if (!value) return form;
  const Fields format(*value, fields.path("response_format"));
  const std::string type = format.text("type").value_or("text");
  if (type == "json_object") {
    form.kind = ContentForm::Kind::object;
    return form;
  }
  if (type == "text") return form;
  if (type != "json_schema")
    format.refuse("type", fmt::format("is '{}': use text, json_object or json_schema", type));
  const Fields inner(format.required("json_schema"), format.path("json_schema"));
  // Without one OpenAI's servers ask for any object.
  if (!inner.find("schema")) {
    form.kind = ContentForm::Kind::object;
    return form;
  }
  form.kind = ContentForm::Kind::schema;
  form.schema = schema_at(inner, "schema");
  form.path = inner.path("schema");
  return form;
}

// The names that users of other servers know.
ContentForm read_guided(const Fields& fields, const char* name) {
  ContentForm form;
  form.path = fields.path(name);
  const json::Value& value = *fields.find(name);
  if (std::string_view(name) == "guided_regex") {
    form.kind = ContentForm::Kind::expression;
    if (!value.is_string()) fields.refuse(name, "must be a regular expression");
    form.expression = value.as_string();
  } else if (std::string_view(name) == "guided_choice") {
    form.kind = ContentForm::Kind::choice;
    if (!value.is_array() || value.as_array().empty())
      fields.refuse(name, "must be a list of strings that is not empty");
    for (const json::Value& choice : value.as_array()) {
      if (!choice.is_string()) fields.refuse(name, "must be a list of strings");
      form.choices.push_back(choice.as_string());
    }
  } else {
    form.kind = ContentForm::Kind::schema;
    form.schema = value;
    // vLLM takes a schema as text too.
    if (value.is_string()) form.schema = json::parse(value.as_string(), form.path);
    if (!form.schema.is_object() && !form.schema.is_bool())
      fields.refuse(name, "must be a JSON schema");
  }
  return form;
}

ContentForm read_content(const Fields& fields) {
  ContentForm form = read_response_format(fields);
  const char* from = form.kind == ContentForm::Kind::free ? nullptr : "response_format";
  for (const char* name : {"guided_json", "guided_regex", "guided_choice", "json_schema"}) {
    if (!fields.find(name)) continue;
    if (from) fields.refuse(name, fmt::format("cannot be asked for beside {}", from));
    form = read_guided(fields, name);
    from = name;
  }
  for (const char* name : {"guided_grammar", "grammar", "structured_outputs"})
    fields.refuse_unsupported(name);
  return form;
}

// --- tools --------------------------------------------------------------------------------------

struct ToolChoice {
  bool required = false;
  std::string name;  // of the one to be called
};

ToolChoice read_tool_choice(const Fields& fields, const json::Array& tools) {
  ToolChoice choice;
  const json::Value* value = fields.find("tool_choice");
  if (!value) return choice;
  if (value->is_string()) {
    constexpr std::array known = {"auto", "none", "required"};
    const std::string& text = value->as_string();
    if (std::find(known.begin(), known.end(), text) == known.end())
      fields.refuse("tool_choice",
                    fmt::format("is '{}': use auto, none, required or a function", text));
    choice.required = text == "required";
  } else {
    const Fields named(*value, fields.path("tool_choice"));
    const Fields function(named.required("function"), named.path("function"));
    choice.name = function.required_text("name");
    choice.required = true;
    const bool is_there = std::any_of(tools.begin(), tools.end(), [&](const json::Value& tool) {
      return *tool.find("function")->find("name") == json::Value(choice.name);
    });
    if (!is_there)
      function.refuse("name", fmt::format("is '{}', which is none of the tools", choice.name));
  }
  if (choice.required && tools.empty())
    fields.refuse("tool_choice", "asks for a call, but there are no tools");
  return choice;
}

struct Tools {
  std::vector<grammar::AnswerTool> list;
  std::vector<bool> is_strict;
};

Tools read_tools(const json::Array& tools, const ToolChoice& choice) {
  Tools read;
  for (size_t i = 0; i < tools.size(); ++i) {
    const json::Value& function = *tools[i].find("function");
    const std::string& name = function.find("name")->as_string();
    if (!choice.name.empty() && name != choice.name) continue;
    // As OpenAI's: a function without parameters takes none.
    json::Value parameters = json::Object{
        {"type", "object"}, {"properties", json::Object{}}, {"additionalProperties", false}};
    if (const json::Value* given = function.find("parameters"); given && !given->is_null())
      parameters = *given;
    if (parameters.is_object() && !parameters.find("type"))
      parameters.as_object().set("type", "object");
    read.list.push_back(
        {name, std::move(parameters), fmt::format("tools[{}].function.parameters", i)});
    const json::Value* strict = function.find("strict");
    read.is_strict.push_back(choice.required || (strict && *strict == json::Value(true)));
  }
  return read;
}

// Where a tool's schema cannot be enforced and need not be, its relaxed form takes its place.
Grammars::Made make_grammar(AnswerForm form, const std::vector<bool>& is_strict,
                            const ToolSchemas& schemas) {
  try {
    return {grammar::answer_grammar(form, schemas), {}};
  } catch (const Error&) {
    if (form.tools.empty()) throw;
  }
  std::vector<std::string> notes;
  AnswerForm alone = form;
  alone.content.kind = ContentForm::Kind::none;
  for (size_t i = 0; i < form.tools.size(); ++i) {
    alone.tools = {form.tools[i]};
    try {
      grammar::answer_grammar(alone, schemas);
    } catch (const Error& error) {
      if (is_strict[i]) throw;
      notes.push_back(fmt::format("not enforced: {}", error.what()));
      form.tools[i].parameters = grammar::relaxed_parameters(form.tools[i].parameters);
    }
  }
  return {grammar::answer_grammar(form, schemas), std::move(notes)};
}

// --- all of it --------------------------------------------------------------------------------

AnswerForm::Reasoning reasoning_of(const std::string& prompt, const ServedModel& model) {
  if (prompt_opens_reasoning(prompt)) return AnswerForm::Reasoning::begun;
  const std::string& source = model.chat_template->standard().source();
  const size_t end = prompt.find_last_not_of(" \n\r\t");
  const bool is_over = end != std::string::npos && prompt.substr(0, end + 1).ends_with("</think>");
  if (is_over || source.find("<think>") == std::string::npos) return AnswerForm::Reasoning::none;
  return AnswerForm::Reasoning::possible;
}

// What tells one form from another.
std::string key_of(const AnswerForm& form, const std::vector<bool>& is_strict) {
  json::Array tools;
  for (size_t i = 0; i < form.tools.size(); ++i)
    tools.emplace_back(
        json::Array{form.tools[i].name, form.tools[i].parameters, bool{is_strict[i]}});
  json::Array choices;
  for (const std::string& choice : form.content.choices) choices.emplace_back(choice);
  return json::write(json::Array{static_cast<int>(form.reasoning),
                                 static_cast<int>(form.content.kind), form.content.schema,
                                 form.content.expression, std::move(choices), std::move(tools),
                                 static_cast<int>(form.calls), form.several_calls});
}

FormedAnswer formed_answer(const AnswerForm& form, const std::vector<bool>& is_strict,
                           const ToolSchemas& schemas, const Fields& fields,
                           const ServedModel& model) {
  if (!model.grammars)
    throw ApiError(400, "this server holds no answers to a form", "unsupported_value");
  if (fields.boolean("ignore_eos").value_or(false))
    fields.refuse("ignore_eos", "would go on behind the end of an answer that has a form");
  if (fields.boolean("continue_final_message").value_or(false) &&
      form.content.kind != ContentForm::Kind::free)
    fields.refuse("continue_final_message", "cannot go on with an answer that has a form");
  try {
    Grammars::Kept kept = model.grammars->find(
        key_of(form, is_strict), [&] { return make_grammar(form, is_strict, schemas); });
    return {std::move(kept.constraint), std::move(kept.notes)};
  } catch (const Error& error) {
    refuse_schema(error.what(), form.content.path.empty() ? "tools" : form.content.path);
  }
}

}  // namespace

FormedAnswer read_answer_form(const Fields& fields, const json::Array& tools,
                              const std::string& prompt, const ServedModel& model) {
  AnswerForm form;
  form.content = read_content(fields);
  const ToolChoice choice = read_tool_choice(fields, tools);
  form.several_calls = fields.boolean("parallel_tool_calls").value_or(true) && choice.name.empty();
  const bool is_free = form.content.kind == ContentForm::Kind::free;
  const bool nothing_asked = is_free && !choice.required;
  if (nothing_asked && (tools.empty() || !model.grammars)) return {};
  if (choice.required) form.content.kind = ContentForm::Kind::none;
  form.reasoning = reasoning_of(prompt, model);
  const ChatTemplate* with_tools = model.chat_template->with_tools();
  form.calls = grammar::call_form(
      (with_tools && !tools.empty() ? *with_tools : model.chat_template->standard()).source());
  const ToolSchemas schemas(tools);
  Tools read = read_tools(tools, choice);
  form.tools = std::move(read.list);
  return formed_answer(form, read.is_strict, schemas, fields, model);
}

FormedAnswer read_text_form(const Fields& fields, const ServedModel& model) {
  AnswerForm form;
  form.content = read_content(fields);
  if (form.content.kind == ContentForm::Kind::free) return {};
  return formed_answer(form, {}, ToolSchemas({}), fields, model);
}

}  // namespace qnext::server
