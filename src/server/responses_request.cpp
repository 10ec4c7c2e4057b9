#include "server/responses_request.h"

#include <limits>
#include <utility>
#include <vector>

#include "server/fields.h"
#include "server/responses_input.h"

namespace qnext::server {
namespace {

json::Array read_input(const Fields& fields) {
  const json::Value& input = fields.required("input");
  if (input.is_string())
    return {json::Object{{"type", "message"}, {"role", "user"}, {"content", input}}};
  if (!input.is_array() || input.as_array().empty())
    fields.refuse("input", "must be a string or a list of at least one item");
  return input.as_array();
}

StoredResponse::Pointer find_previous(const Fields& fields, ResponseStore& store) {
  const auto id = fields.text("previous_response_id");
  if (!id) return nullptr;
  StoredResponse::Pointer previous = store.find(*id);
  if (!previous)
    throw ApiError(404, fmt::format("previous_response_id: there is no '{}' here (any more)", *id),
                   "previous_response_not_found", "previous_response_id");
  return previous;
}

bool is_system(const json::Value& message) {
  const std::string& role = message.find("role")->as_string();
  return role == "system" || role == "developer";
}

// Most templates know one system message, the first.
void add_instructions(const std::string& instructions, json::Array& messages) {
  std::string text = instructions;
  if (!messages.empty() && is_system(messages.front())) {
    text += "\n\n" + messages.front().find("content")->as_string();
    messages.erase(messages.begin());
  }
  messages.insert(messages.begin(), json::Object{{"role", "system"}, {"content", text}});
}

// The whole conversation.
json::Array read_messages(const Fields& fields, const ResponsesRequest& request) {
  std::vector<const StoredResponse*> turns;
  for (const StoredResponse* turn = request.previous.get(); turn; turn = turn->previous().get())
    turns.push_back(turn);
  ResponsesInput conversation;
  for (auto turn = turns.rbegin(); turn != turns.rend(); ++turn) {
    const json::Value input = json::parse((*turn)->input(), "input");
    for (const json::Value& item : input.as_array()) conversation.add(item, "previous_response_id");
    const json::Value response = json::parse((*turn)->response(), "response");
    for (const json::Value& item : response.find("output")->as_array())
      conversation.add(item, "previous_response_id");
  }
  for (size_t i = 0; i < request.input.size(); ++i)
    conversation.add(request.input[i], fmt::format("input[{}]", i));
  json::Array messages = conversation.messages();
  if (const auto instructions = fields.text("instructions"))
    add_instructions(*instructions, messages);
  return messages;
}

json::Array read_tools(const Fields& fields) {
  json::Array tools;
  const json::Value* given = fields.find("tools");
  if (!given) return tools;
  if (!given->is_array()) fields.refuse("tools", "must be a list");
  for (size_t i = 0; i < given->as_array().size(); ++i) {
    const Fields tool(given->as_array()[i], fmt::format("tools[{}]", i));
    const std::string& type = tool.required_text("type");
    if (type != "function")
      tool.refuse("type", fmt::format("is '{}': only tools of the client are here", type));
    const std::string& name = tool.required_text("name");
    if (name.empty()) tool.refuse("name", "is empty");
    json::Object function{{"name", name}};
    for (const char* field : {"description", "parameters", "strict"})
      if (const json::Value* value = tool.find(field)) function.set(field, *value);
    tools.emplace_back(json::Object{{"type", "function"}, {"function", std::move(function)}});
  }
  return tools;
}

json::Value read_tool_choice(const Fields& fields) {
  const json::Value* given = fields.find("tool_choice");
  if (!given || given->is_string()) return given ? *given : json::Value();
  const Fields choice(*given, "tool_choice");
  const std::string& type = choice.required_text("type");
  if (type != "function") choice.refuse("type", fmt::format("is '{}', not function", type));
  return json::Object{{"type", "function"},
                      {"function", json::Object{{"name", choice.required_text("name")}}}};
}

// text.format as response_format.
json::Value read_format(const Fields& fields) {
  const json::Value* text = fields.find("text");
  if (!text) return nullptr;
  const json::Value* given = Fields(*text, "text").find("format");
  if (!given) return nullptr;
  const Fields format(*given, "text.format");
  if (format.required_text("type") != "json_schema") return *given;
  json::Object schema;
  for (const char* name : {"name", "description", "schema", "strict"})
    if (const json::Value* value = format.find(name)) schema.set(name, *value);
  return json::Object{{"type", "json_schema"}, {"json_schema", std::move(schema)}};
}

json::Value read_effort(const Fields& fields) {
  const json::Value* reasoning = fields.find("reasoning");
  if (!reasoning) return nullptr;
  const auto effort = Fields(*reasoning, "reasoning").text("effort");
  return effort ? json::Value(*effort) : json::Value();
}

void refuse_what_is_not_here(const Fields& fields) {
  for (const char* name : {"conversation", "prompt", "top_logprobs"})
    fields.refuse_unsupported(name);
  if (fields.boolean("background").value_or(false))
    throw ApiError(400, "not supported yet: background true", "unsupported_value", "background");
  const json::Value* include = fields.find("include");
  if (!include) return;
  if (!include->is_array()) fields.refuse("include", "must be a list");
  for (const json::Value& entry : include->as_array())
    if (entry == json::Value("message.output_text.logprobs"))
      throw ApiError(400, "not supported yet: include message.output_text.logprobs",
                     "unsupported_value", "include");
}

json::Object settings_told_again(const Fields& fields) {
  json::Object told;
  const auto tell = [&](const char* name, const json::Value& otherwise) {
    const json::Value* given = fields.find(name);
    told.set(name, given ? *given : otherwise);
  };
  tell("instructions", nullptr);
  tell("max_output_tokens", nullptr);
  tell("metadata", json::Object{});
  tell("parallel_tool_calls", true);
  tell("previous_response_id", nullptr);
  tell("reasoning", json::Object{{"effort", nullptr}, {"summary", nullptr}});
  tell("store", true);
  tell("text", json::Object{{"format", json::Object{{"type", "text"}}}});
  tell("tool_choice", "auto");
  tell("tools", json::Array{});
  tell("truncation", "disabled");
  tell("user", nullptr);
  return told;
}

}  // namespace

ResponsesRequest read_responses_request(const json::Value& body, ResponseStore& store) {
  const Fields fields(body);
  refuse_what_is_not_here(fields);
  ResponsesRequest request;
  request.store = fields.boolean("store").value_or(true);
  request.previous = find_previous(fields, store);
  request.input = read_input(fields);
  request.told_again = settings_told_again(fields);

  json::Object chat = body.as_object();
  // Other protocols' fields, which are nothing here.
  for (const char* name : {"n", "max_completion_tokens", "stream_options", "logprobs", "functions",
                           "continue_final_message", "max_tokens"})
    chat.set(name, nullptr);
  chat.set("messages", read_messages(fields, request));
  if (json::Array tools = read_tools(fields); !tools.empty()) chat.set("tools", std::move(tools));
  chat.set("tool_choice", read_tool_choice(fields));
  chat.set("response_format", read_format(fields));
  chat.set("reasoning_effort", read_effort(fields));
  if (const auto most = fields.integer("max_output_tokens", 1, std::numeric_limits<int64_t>::max()))
    chat.set("max_tokens", *most);
  request.chat = std::move(chat);
  return request;
}

}  // namespace qnext::server
