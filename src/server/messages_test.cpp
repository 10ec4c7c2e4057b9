// /v1/messages: what its requests mean, how its answers are written, how it refuses.
#include "server/messages.h"

#include <gmock/gmock.h>

#include "server/messages_request.h"
#include "server/messages_writer.h"
#include "server/testing/fake_server.h"
#include "server/testing/written_answer.h"

namespace qnext::server {
namespace {

using testing::Client;
using testing::ClientResponse;
using testing::FakeServer;
using ::testing::HasSubstr;

const Tokenizer tokenizer = engine::testing::tiny_tokenizer();

MessagesWriter::Options options(bool stream) {
  return {.id = "abc",
          .model = "m",
          .stream = stream,
          .in_reasoning = true,
          .tools = testing::weather_tools(),
          .prompt_tokens = 12};
}

std::string text_at(const json::Value& value, std::initializer_list<const char*> path) {
  const json::Value* at = &value;
  for (const char* name : path) {
    at = at->find(name);
    if (!at) return fmt::format("no {}", name);
  }
  return at->is_string() ? at->as_string() : json::write(*at);
}

// What a client makes of the events.
json::Value put_together(const ClientResponse& response) {
  json::Object message;
  json::Array content;
  std::vector<std::string> types;
  std::string partial_json;
  for (const json::Value& event : response.events()) {
    const std::string type = text_at(event, {"type"});
    types.push_back(type);
    if (type == "message_start") message = event.find("message")->as_object();
    if (type.starts_with("content_block")) {
      const auto index = static_cast<size_t>(event.find("index")->as_integer());
      if (type == "content_block_start") {
        EXPECT_EQ(index, content.size());
        content.push_back(*event.find("content_block"));
        partial_json.clear();
        continue;
      }
      EXPECT_EQ(index + 1, content.size()) << "only the last block is open";
      json::Object& block = content.at(index).as_object();
      if (type == "content_block_stop") {
        if (!partial_json.empty()) block.set("input", json::parse(partial_json, "input"));
        continue;
      }
      const json::Value& delta = *event.find("delta");
      const std::string kind = text_at(delta, {"type"});
      if (kind == "input_json_delta") {
        partial_json += text_at(delta, {"partial_json"});
        continue;
      }
      const std::string field = kind == "thinking_delta" ? "thinking" : "text";
      block.set(field, block.find(field)->as_string() + text_at(delta, {field.c_str()}));
    }
    if (type == "message_delta") {
      for (const auto& [name, value] : event.find("delta")->as_object()) message.set(name, value);
      message.set("usage", *event.find("usage"));
    }
  }
  EXPECT_EQ(types.front(), "message_start");
  EXPECT_EQ(types.at(1), "ping");
  EXPECT_EQ(types.back(), "message_stop");
  message.set("content", std::move(content));
  return message;
}

TEST(MessagesWriter, AWholeMessageIsItsBlocks) {
  MessagesWriter writer(options(false), tokenizer);
  const json::Value message =
      json::parse(testing::write_answer(
                      writer, testing::full_answer, 7, {.reason = engine::FinishReason::stop_token},
                      {.prompt_tokens = 12, .cached_tokens = 5, .completion_tokens = 30}),
                  "body");
  EXPECT_EQ(json::write(*message.find("content")),
            R"([{"type": "thinking", "thinking": "I think", "signature": ""}, )"
            R"({"type": "text", "text": "Let me look."}, )"
            R"({"type": "tool_use", "id": "toolu_abc_2", "name": "weather", )"
            R"("input": {"city": "Berlin"}}, )"
            R"({"type": "tool_use", "id": "toolu_abc_3", "name": "weather", )"
            R"("input": {"city": "Rome"}}])");
  EXPECT_EQ(text_at(message, {"stop_reason"}), "tool_use");
  EXPECT_EQ(text_at(message, {"usage"}), R"({"input_tokens": 7, "cache_creation_input_tokens": 0, )"
                                         R"("cache_read_input_tokens": 5, "output_tokens": 30, )"
                                         R"("output_tokens_details": {"thinking_tokens": 7}})");
}

TEST(MessagesWriter, EventsAddUpToTheMessage) {
  const engine::Finish finish{.reason = engine::FinishReason::stop_token};
  const Usage usage{.prompt_tokens = 12, .cached_tokens = 5, .completion_tokens = 30};
  MessagesWriter whole(options(false), tokenizer);
  const json::Value expected =
      json::parse(testing::write_answer(whole, testing::full_answer, 7, finish, usage), "body");
  for (const size_t size : {1, 3, 10, 1000}) {
    MessagesWriter writer(options(true), tokenizer);
    ClientResponse response;
    response.body = testing::write_answer(writer, testing::full_answer, size, finish, usage);
    EXPECT_EQ(put_together(response), expected) << size;
  }
}

TEST(MessagesWriter, TellsWhyTheAnswerEnds) {
  const auto reason = [](const engine::Finish& finish, const std::string& text) {
    MessagesWriter writer(options(false), tokenizer);
    const json::Value message = json::parse(testing::write_answer(writer, text, 5, finish), "body");
    return text_at(message, {"stop_reason"}) + " " + text_at(message, {"stop_sequence"});
  };
  using Reason = engine::FinishReason;
  EXPECT_EQ(reason({.reason = Reason::stop_token}, "a"), "end_turn null");
  EXPECT_EQ(reason({.reason = Reason::length}, testing::full_answer), "max_tokens null");
  EXPECT_EQ(reason({.reason = Reason::context}, "a"), "model_context_window_exceeded null");
  EXPECT_EQ(reason({.reason = Reason::stop_string, .stop_string = "x"}, "a"), "stop_sequence x");
}

TEST(MessagesWriter, ACallThatWasCutOffHasNoInput) {
  MessagesWriter writer(options(false), tokenizer);
  const json::Value message =
      json::parse(testing::write_answer(
                      writer, "</think><tool_call>{\"name\": \"weather\", \"arguments\": {\"city\"",
                      5, {.reason = engine::FinishReason::length}),
                  "body");
  EXPECT_EQ(text_at(message.find("content")->as_array().back(), {"input"}), "{}");
}

std::string chat_of(const std::string& body) {
  return json::write(*messages_as_chat(json::parse(body, "body")).find("messages"));
}

TEST(MessagesRequest, BlocksBecomeMessages) {
  EXPECT_EQ(chat_of(R"({"system": [{"type": "text", "text": "S", "cache_control": {}}],
    "messages": [
      {"role": "user", "content": "Hello"},
      {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "redacted_thinking", "data": "y"},
        {"type": "text", "text": "Look."},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "2", "name": "g", "input": {}}]},
      {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "one"}]},
        {"type": "tool_result", "tool_use_id": "2"},
        {"type": "text", "text": "Go "}, {"type": "text", "text": "on."}]},
      {"role": "system", "content": [{"type": "text", "text": "Now."}]}]})"),
            R"([{"role": "system", "content": "S"}, {"role": "user", "content": "Hello"}, )"
            R"({"role": "assistant", "content": "Look.", "reasoning_content": "hm", )"
            R"("tool_calls": [{"id": "1", "type": "function", "function": )"
            R"({"name": "f", "arguments": {"x": 1}}}, {"id": "2", "type": "function", )"
            R"("function": {"name": "g", "arguments": {}}}]}, )"
            R"({"role": "tool", "content": "one", "tool_call_id": "1"}, )"
            R"({"role": "tool", "content": "", "tool_call_id": "2"}, )"
            R"({"role": "user", "content": "Go on."}, {"role": "system", "content": "Now."}])");
}

TEST(MessagesRequest, FieldsBecomeThoseOfAChat) {
  const auto field = [](const std::string& fields, const char* name) {
    const json::Value chat = messages_as_chat(
        json::parse(R"({"messages": [{"role": "user", "content": "a"}], )" + fields + "}", "body"));
    const json::Value* value = chat.find(name);
    return value ? json::write(*value) : "absent";
  };
  EXPECT_EQ(field(R"("stop_sequences": ["a"], "stop": ["b"])", "stop"), R"(["a"])");
  EXPECT_EQ(field(R"("tool_choice": {"type": "auto"})", "tool_choice"), R"("auto")");
  EXPECT_EQ(field(R"("tool_choice": {"type": "none"})", "tool_choice"), R"("none")");
  EXPECT_EQ(field(R"("tool_choice": {"type": "any"})", "tool_choice"), R"("required")");
  EXPECT_EQ(field(R"("tool_choice": {"type": "tool", "name": "f"})", "tool_choice"),
            R"({"type": "function", "function": {"name": "f"}})");
  EXPECT_EQ(field(R"("tool_choice": {"type": "any", "disable_parallel_tool_use": true})",
                  "parallel_tool_calls"),
            "false");
  EXPECT_EQ(
      field(R"("tools": [{"name": "f", "description": "d", "input_schema": {"a": 1}}])", "tools"),
      R"([{"type": "function", "function": {"name": "f", "description": "d", )"
      R"("parameters": {"a": 1}}}])");
  EXPECT_EQ(
      field(R"("thinking": {"type": "enabled", "budget_tokens": 1024})", "chat_template_kwargs"),
      R"({"enable_thinking": true})");
  EXPECT_EQ(field(R"("thinking": {"type": "disabled"}, "chat_template_kwargs": {"x": 1})",
                  "chat_template_kwargs"),
            R"({"enable_thinking": false, "x": 1})");
  EXPECT_EQ(field(R"("output_config": {"format": {"type": "json_schema", "schema": {}}})",
                  "response_format"),
            R"({"type": "json_schema", "json_schema": {"name": "output", "schema": {}, )"
            R"("strict": true}})");
  EXPECT_EQ(field(R"("n": 3)", "n"), "null");
}

class Messages : public FakeServer {
 protected:
  void SetUp() override {
    start({});
    use_template(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} {% else %}<end>{% endif %}");
  }
  void expect_refused(const std::string& fields, const std::string& said, int status = 400) const {
    const std::string body = "{" + fields + "}";
    const ClientResponse response = post("/v1/messages", body);
    EXPECT_EQ(response.status, status) << body << response.body;
    EXPECT_EQ(text_at(response.json(), {"type"}), "error");
    EXPECT_EQ(text_at(response.json(), {"error", "type"}),
              status == 404 ? "not_found_error" : "invalid_request_error");
    EXPECT_THAT(text_at(response.json(), {"error", "message"}), HasSubstr(said)) << body;
  }
};

constexpr const char* hello =
    R"("messages": [{"role": "user", "content": "ab"}], "max_tokens": 30)";

TEST_F(Messages, AnswersWholeAndStreamed) {
  const ClientResponse whole = post("/v1/messages", fmt::format("{{{}}}", hello));
  ASSERT_EQ(whole.status, 200) << whole.body;
  const json::Value message = whole.json();
  EXPECT_EQ(message.find("content")->as_array().size(), 1u);
  EXPECT_EQ(text_at(message.find("content")->as_array()[0], {"text"}), greedy_text("ab ", 30));
  EXPECT_EQ(text_at(message, {"stop_reason"}), "max_tokens");
  EXPECT_EQ(text_at(message, {"model"}), "fake");
  EXPECT_EQ(text_at(message, {"usage", "output_tokens"}), "30");
  EXPECT_EQ(text_at(message, {"usage", "input_tokens"}),
            std::to_string(tokenizer.encode("ab ").size()));
  EXPECT_TRUE(whole.headers.contains("request-id"));

  const ClientResponse streamed =
      post("/v1/messages", fmt::format(R"({{{}, "stream": true}})", hello));
  EXPECT_EQ(streamed.headers.at("content-type"), "text/event-stream");
  EXPECT_FALSE(streamed.done()) << "this API has no such event";
  const json::Value sum = put_together(streamed);
  EXPECT_EQ(*sum.find("content"), *message.find("content"));
  EXPECT_EQ(*sum.find("usage"), *message.find("usage"));
}

TEST_F(Messages, GoesOnWithTheAssistantsLastMessage) {
  const json::Value message =
      post("/v1/messages", R"({"messages": [{"role": "user", "content": "ab"},
          {"role": "assistant", "content": "c "}], "max_tokens": 30, "top_k": 1})")
          .json();
  EXPECT_EQ(text_at(message.find("content")->as_array()[0], {"text"}), greedy_text("abc", 30));
}

TEST_F(Messages, CountsTokens) {
  const ClientResponse counted =
      post("/v1/messages/count_tokens", R"({"messages": [{"role": "user", "content": "ab"}]})");
  EXPECT_EQ(text_at(counted.json(), {"input_tokens"}),
            std::to_string(tokenizer.encode("ab ").size()));
}

TEST_F(Messages, RefusesInTheShapeOfItsApi) {
  expect_refused(R"("messages": [{"role": "user", "content": "a"}])", "max_tokens is missing");
  expect_refused(R"("max_tokens": 5)", "messages is missing");
  const auto with = [&](const std::string& fields, const std::string& said) {
    expect_refused(hello + (", " + fields), said);
  };
  with(R"("temperature": 3)", "temperature is 3");
  with(R"("stop_sequences": [""])", "stop_sequences holds an empty string");
  with(R"("tools": [{"name": "f"}])", "tools[0].input_schema is missing");
  with(R"("tools": [{"type": "web_search_20250305", "name": "f"}])", "tools[0].type");
  with(R"("tool_choice": {"type": "some"})", "tool_choice.type");
  with(R"("thinking": {"type": "a little"})", "thinking.type");
  with(R"("mcp_servers": [])", "mcp_servers is not supported");
  const auto messages = [&](const std::string& list, const std::string& said) {
    expect_refused(R"("max_tokens": 5, "messages": )" + list, said);
  };
  messages("[]", "messages must be a list");
  messages(R"([{"role": "tool", "content": "a"}])", "messages[0].role");
  messages(R"([{"role": "user", "content": [{"type": "image", "source": {}}]}])",
           "messages[0].content[0].type is 'image'");
  messages(R"([{"role": "user", "content": [{"type": "tool_result"}]}])",
           "messages[0].content[0].tool_use_id is missing");
  messages(R"([{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f",
                "input": "x"}]}])",
           "messages[0].content[0].input must be an object");
  expect_refused(hello + std::string(R"(, "model": "claude")"), "there is no model", 404);
  Client client(port());
  const ClientResponse wrong = client.get("/v1/messages");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST");
  EXPECT_EQ(text_at(wrong.json(), {"type"}), "error");
}

TEST_F(FakeServer, TheKeyMayComeAsAnthropicsClientsSendIt) {
  start({.api_key = "secret"});
  const auto ask = [&](const testing::Headers& headers) {
    Client client(port());
    return client.post("/v1/messages", "{}", headers);
  };
  const ClientResponse stranger = ask({{"x-api-key", "secre"}});
  EXPECT_EQ(stranger.status, 401);
  EXPECT_EQ(text_at(stranger.json(), {"error", "type"}), "authentication_error");
  EXPECT_EQ(ask({{"x-api-key", "secret"}}).status, 400);
  EXPECT_EQ(ask({{"authorization", "Bearer secret"}}).status, 400);
}

}  // namespace
}  // namespace qnext::server
