#include "server/messages_request.h"

#include <utility>

#include "server/fields.h"
#include "server/message_content.h"

namespace qnext::server {
namespace {

[[noreturn]] void refuse_block(const Fields& block, const std::string& type) {
  block.refuse("type", fmt::format("is '{}', which this model cannot read", type));
}

json::Object message(const char* role, std::string content) {
  return {{"role", role}, {"content", std::move(content)}};
}

// Results of tools are messages of their own in a chat.
void add_user_message(const json::Array& blocks, const std::string& path, json::Array& messages) {
  std::string text;
  bool has_text = false;
  const auto end_text = [&] {
    if (std::exchange(has_text, false))
      messages.emplace_back(message("user", std::exchange(text, {})));
  };
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Fields block(blocks[i], fmt::format("{}[{}]", path, i));
    const std::string& type = block.required_text("type");
    if (type == "text") {
      text += block.required_text("text");
      has_text = true;
    } else if (type == "tool_result") {
      end_text();
      const json::Value* content = block.find("content");
      json::Object result = message(
          "tool", content ? read_text_content(*content, block.path("content")) : std::string());
      result.set("tool_call_id", block.required_text("tool_use_id"));
      messages.emplace_back(std::move(result));
    } else {
      refuse_block(block, type);
    }
  }
  end_text();
}

json::Object call_of(const Fields& block) {
  const json::Value& input = block.required("input");
  if (!input.is_object()) block.refuse("input", "must be an object");
  return {{"id", block.required_text("id")},
          {"type", "function"},
          {"function", json::Object{{"name", block.required_text("name")}, {"arguments", input}}}};
}

void add_assistant_message(const json::Array& blocks, const std::string& path,
                           json::Array& messages) {
  std::string text;
  std::string thinking;
  json::Array calls;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Fields block(blocks[i], fmt::format("{}[{}]", path, i));
    const std::string& type = block.required_text("type");
    if (type == "text")
      text += block.required_text("text");
    else if (type == "thinking")
      thinking += block.required_text("thinking");
    else if (type == "tool_use")
      calls.emplace_back(call_of(block));
    else if (type != "redacted_thinking")
      refuse_block(block, type);
  }
  json::Object read = message("assistant", std::move(text));
  if (!thinking.empty()) read.set("reasoning_content", std::move(thinking));
  if (!calls.empty()) read.set("tool_calls", std::move(calls));
  messages.emplace_back(std::move(read));
}

json::Array read_messages(const Fields& fields) {
  json::Array messages;
  if (const json::Value* system = fields.find("system"))
    messages.emplace_back(message("system", read_text_content(*system, "system")));
  const json::Value& given = fields.required("messages");
  if (!given.is_array() || given.as_array().empty())
    fields.refuse("messages", "must be a list of at least one message");
  for (size_t i = 0; i < given.as_array().size(); ++i) {
    const Fields entry(given.as_array()[i], fmt::format("messages[{}]", i));
    const std::string& role = entry.required_text("role");
    if (role != "user" && role != "assistant" && role != "system")
      entry.refuse("role", fmt::format("is '{}', which is none of user, assistant, system", role));
    const json::Value& content = entry.required("content");
    if (content.is_string())
      messages.emplace_back(message(role.c_str(), content.as_string()));
    else if (!content.is_array())
      entry.refuse("content", "must be a string or a list of blocks");
    else if (role == "user")
      add_user_message(content.as_array(), entry.path("content"), messages);
    else if (role == "assistant")
      add_assistant_message(content.as_array(), entry.path("content"), messages);
    else
      messages.emplace_back(message("system", read_text_content(content, entry.path("content"))));
  }
  return messages;
}

// Whether the answer goes on with the last message.
bool ends_with_text_of_assistant(const json::Array& messages) {
  if (messages.empty()) return false;
  const json::Value& last = messages.back();
  return last.find("role")->as_string() == "assistant" && !last.find("tool_calls") &&
         last.find("content")->as_string().find_first_not_of(" \n\r\t") != std::string::npos;
}

json::Array read_tools(const Fields& fields) {
  json::Array tools;
  const json::Value* given = fields.find("tools");
  if (!given) return tools;
  if (!given->is_array()) fields.refuse("tools", "must be a list");
  for (size_t i = 0; i < given->as_array().size(); ++i) {
    const Fields tool(given->as_array()[i], fmt::format("tools[{}]", i));
    const std::string type = tool.text("type").value_or("custom");
    if (type != "custom")
      tool.refuse("type", fmt::format("is '{}': only tools of the client are here", type));
    const std::string& name = tool.required_text("name");
    if (name.empty()) tool.refuse("name", "is empty");
    const json::Value& schema = tool.required("input_schema");
    if (!schema.is_object()) tool.refuse("input_schema", "must be an object");
    json::Object function{{"name", name}};
    if (const auto description = tool.text("description"))
      function.set("description", *description);
    function.set("parameters", schema);
    if (const auto strict = tool.boolean("strict")) function.set("strict", *strict);
    tools.emplace_back(json::Object{{"type", "function"}, {"function", std::move(function)}});
  }
  return tools;
}

void read_tool_choice(const Fields& fields, json::Object& chat) {
  const json::Value* given = fields.find("tool_choice");
  if (!given) return;
  const Fields choice(*given, "tool_choice");
  const std::string& type = choice.required_text("type");
  if (type == "auto" || type == "none")
    chat.set("tool_choice", type);
  else if (type == "any")
    chat.set("tool_choice", "required");
  else if (type == "tool")
    chat.set("tool_choice",
             json::Object{{"type", "function"},
                          {"function", json::Object{{"name", choice.required_text("name")}}}});
  else
    choice.refuse("type", fmt::format("is '{}', which is none of auto, any, tool, none", type));
  if (choice.boolean("disable_parallel_tool_use").value_or(false))
    chat.set("parallel_tool_calls", false);
}

void read_thinking(const Fields& fields, json::Object& chat) {
  const json::Value* given = fields.find("thinking");
  if (!given) return;
  const Fields thinking(*given, "thinking");
  const std::string& type = thinking.required_text("type");
  if (type == "disabled" || type == "enabled") {
    json::Object variables{{"enable_thinking", type == "enabled"}};
    if (const json::Value* more = fields.find("chat_template_kwargs"); more && more->is_object())
      for (const auto& [name, value] : more->as_object()) variables.set(name, value);
    chat.set("chat_template_kwargs", std::move(variables));
  } else if (type != "adaptive" && type != "between_tools") {
    thinking.refuse("type", fmt::format("is '{}', which is none of enabled, disabled, adaptive, "
                                        "between_tools",
                                        type));
  }
}

// Structured output, under the name it has now and the one before.
void read_output_format(const Fields& fields, json::Object& chat) {
  const json::Value* format = fields.find("output_format");
  std::string path = "output_format";
  if (const json::Value* config = fields.find("output_config")) {
    const Fields inner(*config, "output_config");
    if (const json::Value* newer = inner.find("format")) {
      format = newer;
      path = inner.path("format");
    }
  }
  if (!format) return;
  const Fields wanted(*format, path);
  if (wanted.required_text("type") != "json_schema")
    wanted.refuse("type", "must be \"json_schema\"");
  chat.set("response_format",
           json::Object{{"type", "json_schema"},
                        {"json_schema", json::Object{{"name", "output"},
                                                     {"schema", wanted.required("schema")},
                                                     {"strict", true}}}});
}

}  // namespace

json::Value messages_as_chat(const json::Value& body) {
  const Fields fields(body);
  for (const char* name : {"mcp_servers", "container", "context_management"})
    fields.refuse_unsupported(name);
  json::Object chat = body.as_object();
  // Other protocols' fields, which are nothing here.
  for (const char* name : {"n", "max_completion_tokens", "stream_options", "logprobs",
                           "top_logprobs", "tool_choice", "response_format", "stop", "functions"})
    chat.set(name, nullptr);
  json::Array messages = read_messages(fields);
  chat.set("continue_final_message", ends_with_text_of_assistant(messages));
  chat.set("messages", std::move(messages));
  if (json::Array tools = read_tools(fields); !tools.empty()) chat.set("tools", std::move(tools));
  if (const json::Value* stop = fields.find("stop_sequences")) {
    if (!stop->is_array()) fields.refuse("stop_sequences", "must be a list of strings");
    chat.set("stop", *stop);
  }
  read_tool_choice(fields, chat);
  read_thinking(fields, chat);
  read_output_format(fields, chat);
  return chat;
}

}  // namespace qnext::server
