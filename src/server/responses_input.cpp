#include "server/responses_input.h"

#include <utility>

#include "server/fields.h"
#include "server/message_content.h"

namespace qnext::server {
namespace {

// Of the content where there is one, else of the summary.
std::string read_reasoning(const Fields& item) {
  std::string text;
  for (const char* name : {"content", "summary"}) {
    const json::Value* parts = item.find(name);
    if (!parts || !text.empty()) continue;
    if (!parts->is_array()) item.refuse(name, "must be a list");
    for (size_t i = 0; i < parts->as_array().size(); ++i)
      text += Fields(parts->as_array()[i], fmt::format("{}[{}]", item.path(name), i))
                  .required_text("text");
  }
  return text;
}

}  // namespace

void ResponsesInput::end_turn() {
  if (!has_content_ && reasoning_.empty() && calls_.empty()) return;
  json::Object message{{"role", "assistant"}, {"content", std::exchange(content_, {})}};
  if (!reasoning_.empty()) message.set("reasoning_content", std::exchange(reasoning_, {}));
  if (!calls_.empty()) message.set("tool_calls", std::exchange(calls_, {}));
  messages_.emplace_back(std::move(message));
  has_content_ = false;
}

void ResponsesInput::add_message(const json::Value& value, const std::string& path) {
  const Fields item(value, path);
  const std::string& role = item.required_text("role");
  std::string content = read_text_content(item.required("content"), item.path("content"));
  if (role == "assistant") {
    if (has_content_ || !calls_.empty()) end_turn();
    content_ = std::move(content);
    has_content_ = true;
    return;
  }
  if (role != "user" && role != "system" && role != "developer")
    item.refuse("role",
                fmt::format("is '{}', which is none of user, assistant, system, developer", role));
  end_turn();
  messages_.emplace_back(json::Object{{"role", role}, {"content", std::move(content)}});
}

void ResponsesInput::add_call(const json::Value& value, const std::string& path) {
  const Fields item(value, path);
  json::Value arguments;
  try {
    arguments = json::parse(item.required_text("arguments"), "arguments");
  } catch (const ApiError&) {
    throw;
  } catch (const Error&) {
    item.refuse("arguments", "is not JSON");
  }
  if (!arguments.is_object()) item.refuse("arguments", "must be a JSON object");
  calls_.emplace_back(json::Object{
      {"id", item.required_text("call_id")},
      {"type", "function"},
      {"function",
       json::Object{{"name", item.required_text("name")}, {"arguments", std::move(arguments)}}}});
}

void ResponsesInput::add(const json::Value& value, const std::string& path) {
  const Fields item(value, path);
  const std::string type = item.text("type").value_or("message");
  if (type == "message") {
    add_message(value, path);
  } else if (type == "reasoning") {
    if (has_content_ || !calls_.empty()) end_turn();
    reasoning_ += read_reasoning(item);
  } else if (type == "function_call") {
    add_call(value, path);
  } else if (type == "function_call_output") {
    end_turn();
    messages_.emplace_back(
        json::Object{{"role", "tool"},
                     {"tool_call_id", item.required_text("call_id")},
                     {"content", read_text_content(item.required("output"), item.path("output"))}});
  } else {
    item.refuse("type", fmt::format("is '{}', which this server does not know", type));
  }
}

json::Array ResponsesInput::messages() {
  end_turn();
  return messages_;
}

}  // namespace qnext::server
