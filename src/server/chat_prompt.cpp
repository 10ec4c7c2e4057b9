#include "server/chat_prompt.h"

#include <algorithm>
#include <array>
#include <utility>

#include "server/message_content.h"

namespace qnext::server {
namespace {

// Arguments come as JSON text, and templates walk through an object.
json::Value read_tool_call(const json::Value& value, const std::string& path) {
  const Fields call(value, path);
  const Fields function(call.required("function"), call.path("function"));
  const std::string& name = function.required_text("name");
  json::Value arguments = json::Object{};
  if (const json::Value* given = function.find("arguments")) {
    arguments = *given;
    if (given->is_string() && !given->as_string().empty()) {
      try {
        arguments = json::parse(given->as_string(), "arguments");
      } catch (const Error&) {
        function.refuse("arguments", "is not JSON");
      }
    }
    if (!arguments.is_object()) function.refuse("arguments", "must be a JSON object");
  }
  json::Object read{{"type", "function"},
                    {"function", json::Object{{"name", name}, {"arguments", arguments}}}};
  if (const json::Value* id = call.find("id")) read.set("id", *id);
  return read;
}

json::Object read_message(const json::Value& value, const std::string& path) {
  const Fields message(value, path);
  const std::string& given = message.required_text("role");
  const std::string role = given == "developer" ? "system" : given;
  constexpr std::array roles = {"system", "user", "assistant", "tool"};
  if (std::find(roles.begin(), roles.end(), role) == roles.end())
    message.refuse("role", fmt::format("is '{}', which is none of system, developer, user, "
                                       "assistant, tool",
                                       role));
  json::Object read{{"role", role}};
  const json::Value* calls = message.find("tool_calls");
  if (const json::Value* content = message.find("content"))
    read.set("content", read_text_content(*content, message.path("content")));
  else if (role == "assistant")
    read.set("content", "");
  else
    message.refuse("content", "is missing");
  for (const char* name : {"reasoning_content", "name", "tool_call_id"})
    if (auto text = message.text(name)) read.set(name, *text);
  if (calls) {
    if (!calls->is_array()) message.refuse("tool_calls", "must be a list");
    json::Array list;
    for (size_t i = 0; i < calls->as_array().size(); ++i)
      list.push_back(read_tool_call(calls->as_array()[i],
                                    fmt::format("{}[{}]", message.path("tool_calls"), i)));
    read.set("tool_calls", std::move(list));
  }
  return read;
}

json::Array read_tools(const Fields& fields) {
  for (const char* name : {"functions", "function_call", "audio", "prediction"})
    fields.refuse_unsupported(name);
  const json::Value* tools = fields.find("tools");
  if (!tools) return {};
  if (!tools->is_array()) fields.refuse("tools", "must be a list");
  for (size_t i = 0; i < tools->as_array().size(); ++i) {
    const Fields tool(tools->as_array()[i], fmt::format("tools[{}]", i));
    if (tool.text("type").value_or("function") != "function")
      tool.refuse("type", "must be \"function\"");
    const Fields function(tool.required("function"), tool.path("function"));
    const json::Value& name = function.required("name");
    if (!name.is_string() || name.as_string().empty())
      function.refuse("name", "must be a string that is not empty");
    if (const json::Value* parameters = function.find("parameters"))
      Fields(*parameters, function.path("parameters"));
  }
  const json::Value* choice = fields.find("tool_choice");
  if (choice && *choice == json::Value("none")) return {};
  return tools->as_array();
}

json::Object read_variables(const Fields& fields) {
  json::Object variables;
  const std::string effort = fields.text("reasoning_effort").value_or("");
  if (effort == "none" || effort == "minimal") variables.set("enable_thinking", false);
  const json::Value* more = fields.find("chat_template_kwargs");
  if (!more) return variables;
  if (!more->is_object()) fields.refuse("chat_template_kwargs", "must be an object");
  for (const auto& [name, value] : more->as_object()) variables.set(name, value);
  return variables;
}

// Without what the template writes behind the last message; templates may trim the content.
std::string cut_behind(std::string text, const json::Value& last, const Fields& fields) {
  constexpr std::string_view blanks = " \n\r\t";
  const json::Value* role = last.find("role");
  if (role->as_string() != "assistant" || last.find("tool_calls"))
    fields.refuse("continue_final_message", "needs a last message of the assistant, without calls");
  const std::string& content = last.find("content")->as_string();
  const size_t first = content.find_first_not_of(blanks);
  if (first == std::string::npos)
    fields.refuse("continue_final_message", "needs a last message that says something");
  const std::string said = content.substr(first, content.find_last_not_of(blanks) + 1 - first);
  const size_t at = text.rfind(said);
  if (at == std::string::npos)
    fields.refuse("continue_final_message", "does not work with this model's chat template");
  text.resize(at + said.size());
  return text;
}

}  // namespace

ChatPrompt chat_prompt(const Fields& fields, const ServedModel& model) {
  if (!model.chat_template)
    throw ApiError(400, "this model has no chat template: use /v1/completions", "no_chat_template");
  const json::Value& messages = fields.required("messages");
  if (!messages.is_array() || messages.as_array().empty())
    fields.refuse("messages", "must be a list of at least one message");
  json::Object variables = read_variables(fields);
  json::Array list;
  for (size_t i = 0; i < messages.as_array().size(); ++i)
    list.emplace_back(read_message(messages.as_array()[i], fmt::format("messages[{}]", i)));
  const bool go_on = fields.boolean("continue_final_message").value_or(false);
  const json::Value last = list.back();
  variables.set("messages", std::move(list));
  json::Array tools = read_tools(fields);
  if (!tools.empty()) variables.set("tools", tools);
  variables.set("add_generation_prompt", !go_on);
  std::string text;
  try {
    text = model.chat_template->render(variables);
  } catch (const Error& error) {
    throw ApiError(400, error.what(), "invalid_value", "messages");
  }
  if (go_on) text = cut_behind(std::move(text), last, fields);
  return {std::move(text), std::move(tools)};
}

}  // namespace qnext::server
