// /v1/responses: what its requests mean, how its answers are written, what is stored.
#include "server/responses.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "server/responses_request.h"
#include "server/responses_writer.h"
#include "server/testing/fake_server.h"
#include "server/testing/written_answer.h"

namespace qnext::server {
namespace {

using testing::Client;
using testing::ClientResponse;
using testing::FakeServer;
using ::testing::HasSubstr;

std::string text_at(const json::Value& value, std::initializer_list<const char*> path) {
  const json::Value* at = &value;
  for (const char* name : path) {
    at = at->find(name);
    if (!at) return fmt::format("no {}", name);
  }
  return at->is_string() ? at->as_string() : json::write(*at);
}

ResponsesWriter::Options options(bool stream, ResponseStore* store = nullptr) {
  return {.id = "abc",
          .model = "m",
          .created = 1,
          .stream = stream,
          .in_reasoning = true,
          .tools = testing::weather_tools(),
          .told_again = {{"temperature", 1}},
          .store = store};
}

const Usage usage{.prompt_tokens = 12, .cached_tokens = 5, .completion_tokens = 30};

json::Value whole_response(const engine::Finish& finish) {
  const Tokenizer tokenizer = engine::testing::tiny_tokenizer();
  ResponsesWriter writer(options(false), tokenizer);
  return json::parse(testing::write_answer(writer, testing::full_answer, 7, finish, usage), "body");
}

// What a client makes of the events, each of which it holds against what came before.
json::Value put_together(const ClientResponse& response) {
  json::Array output;
  json::Value last;
  int64_t number = 0;
  for (const json::Value& event : response.events()) {
    EXPECT_EQ(event.find("sequence_number")->as_integer(), number++);
    const std::string type = text_at(event, {"type"});
    last = event;
    const json::Value* index = event.find("output_index");
    if (!index) continue;
    const auto at = static_cast<size_t>(index->as_integer());
    if (type == "response.output_item.added") {
      EXPECT_EQ(at, output.size());
      EXPECT_EQ(text_at(*event.find("item"), {"status"}), "in_progress");
      output.push_back(*event.find("item"));
      continue;
    }
    EXPECT_EQ(at + 1, output.size()) << "only the last item is open";
    json::Object& item = output.back().as_object();
    if (type == "response.output_item.done") {
      item.set("status", *event.find("item")->find("status"));
      EXPECT_EQ(json::Value(item), *event.find("item"));
      continue;
    }
    EXPECT_EQ(text_at(event, {"item_id"}), item.find("id")->as_string());
    if (type == "response.content_part.added") {
      item.set("content", json::Array{*event.find("part")});
    } else if (type == "response.content_part.done") {
      EXPECT_EQ(*event.find("part"), item.find("content")->as_array().at(0));
    } else if (type == "response.function_call_arguments.delta") {
      item.set("arguments", item.find("arguments")->as_string() + text_at(event, {"delta"}));
    } else if (type == "response.function_call_arguments.done") {
      EXPECT_EQ(text_at(event, {"arguments"}), item.find("arguments")->as_string());
    } else {
      json::Array content = item.find("content")->as_array();
      json::Object& part = content.at(0).as_object();
      const std::string text = part.find("text")->as_string();
      if (type.ends_with("_text.delta")) {
        part.set("text", text + text_at(event, {"delta"}));
        item.set("content", content);
      } else {
        EXPECT_THAT(type, ::testing::EndsWith("_text.done"));
        EXPECT_EQ(text_at(event, {"text"}), text);
      }
    }
  }
  EXPECT_EQ(json::Value(output), *last.find("response")->find("output"));
  return *last.find("response");
}

TEST(ResponsesWriter, AWholeResponseIsItsItems) {
  const json::Value response = whole_response({.reason = engine::FinishReason::stop_token});
  EXPECT_EQ(
      text_at(response, {"output"}),
      R"([{"id": "rs_abc_0", "status": "completed", "type": "reasoning", "summary": [], )"
      R"("content": [{"type": "reasoning_text", "text": "I think"}]}, )"
      R"({"id": "msg_abc_1", "status": "completed", "type": "message", "role": "assistant", )"
      R"("content": [{"type": "output_text", "text": "Let me look.", "annotations": [], )"
      R"("logprobs": []}]}, )"
      R"({"id": "fc_abc_2", "status": "completed", "type": "function_call", )"
      R"("call_id": "call_abc_2", "name": "weather", "arguments": "{\"city\": \"Berlin\"}"}, )"
      R"({"id": "fc_abc_3", "status": "completed", "type": "function_call", )"
      R"("call_id": "call_abc_3", "name": "weather", "arguments": "{\"city\": \"Rome\"}"}])");
  EXPECT_EQ(text_at(response, {"status"}), "completed");
  EXPECT_EQ(text_at(response, {"temperature"}), "1");
  EXPECT_EQ(text_at(response, {"usage", "input_tokens_details", "cached_tokens"}), "5");
  EXPECT_EQ(text_at(response, {"usage", "output_tokens_details", "reasoning_tokens"}), "7");
  EXPECT_EQ(text_at(response, {"usage", "total_tokens"}), "42");
}

TEST(ResponsesWriter, EventsAddUpToTheResponse) {
  const Tokenizer tokenizer = engine::testing::tiny_tokenizer();
  for (const auto reason : {engine::FinishReason::stop_token, engine::FinishReason::length})
    for (const size_t size : {1, 3, 10, 1000}) {
      ResponsesWriter writer(options(true), tokenizer);
      ClientResponse response;
      response.body =
          testing::write_answer(writer, testing::full_answer, size, {.reason = reason}, usage);
      EXPECT_EQ(put_together(response), whole_response({.reason = reason})) << size;
    }
}

TEST(ResponsesWriter, AnAnswerThatIsCutOffIsIncomplete) {
  const json::Value response = whole_response({.reason = engine::FinishReason::length});
  EXPECT_EQ(text_at(response, {"status"}), "incomplete");
  EXPECT_EQ(text_at(response, {"incomplete_details", "reason"}), "max_output_tokens");
  const json::Array& output = response.find("output")->as_array();
  EXPECT_EQ(text_at(output[2], {"status"}), "completed");
  EXPECT_EQ(text_at(output[3], {"status"}), "incomplete");
}

TEST(ResponsesWriter, AnAnswerThatFailsSaysSoAndIsNotStored) {
  const Tokenizer tokenizer = engine::testing::tiny_tokenizer();
  ResponseStore store;
  ResponsesWriter writer(options(true, &store), tokenizer);
  ClientResponse response;
  response.body = writer.begin() + writer.fail({500, "it broke"}, true);
  const json::Value last = response.events().back();
  EXPECT_EQ(text_at(last, {"type"}), "response.failed");
  EXPECT_EQ(text_at(last, {"response", "error", "message"}), "it broke");
  EXPECT_EQ(store.size(), 0u);
}

json::Value read(const std::string& body) {
  ResponseStore store;
  return read_responses_request(json::parse(body, "body"), store).chat;
}

TEST(ResponsesRequest, ItemsBecomeMessages) {
  EXPECT_EQ(text_at(read(R"({"instructions": "I", "input": [
      {"role": "developer", "content": "D"},
      {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
      {"type": "reasoning", "summary": [{"type": "summary_text", "text": "no"}],
       "content": [{"type": "reasoning_text", "text": "hm"}]},
      {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "L"}]},
      {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"x\": 1}"},
      {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "1", "output": "one"},
      {"type": "function_call_output", "call_id": "2",
       "output": [{"type": "input_text", "text": "two"}]},
      {"type": "reasoning", "summary": [{"type": "summary_text", "text": "yes"}]},
      {"type": "function_call", "call_id": "3", "name": "f", "arguments": "{}"},
      {"role": "user", "content": "Bye"}]})"),
                    {"messages"}),
            R"([{"role": "system", "content": "I\n\nD"}, {"role": "user", "content": "Hello"}, )"
            R"({"role": "assistant", "content": "L", "reasoning_content": "hm", "tool_calls": )"
            R"([{"id": "1", "type": "function", "function": {"name": "f", "arguments": )"
            R"({"x": 1}}}, {"id": "2", "type": "function", "function": {"name": "g", )"
            R"("arguments": {}}}]}, {"role": "tool", "tool_call_id": "1", "content": "one"}, )"
            R"({"role": "tool", "tool_call_id": "2", "content": "two"}, )"
            R"({"role": "assistant", "content": "", "reasoning_content": "yes", "tool_calls": )"
            R"([{"id": "3", "type": "function", "function": {"name": "f", "arguments": {}}}]}, )"
            R"({"role": "user", "content": "Bye"}])");
}

TEST(ResponsesRequest, FieldsBecomeThoseOfAChat) {
  const auto field = [](const std::string& fields, const char* name) {
    return text_at(read(R"({"input": "a", )" + fields + "}"), {name});
  };
  EXPECT_EQ(field(R"("max_output_tokens": 5)", "max_tokens"), "5");
  EXPECT_EQ(field(R"("tool_choice": "required")", "tool_choice"), "required");
  EXPECT_EQ(field(R"("tool_choice": {"type": "function", "name": "f"})", "tool_choice"),
            R"({"type": "function", "function": {"name": "f"}})");
  EXPECT_EQ(field(R"("tools": [{"type": "function", "name": "f", "description": "d",
                                "parameters": {"a": 1}, "strict": true}])",
                  "tools"),
            R"([{"type": "function", "function": {"name": "f", "description": "d", )"
            R"("parameters": {"a": 1}, "strict": true}}])");
  EXPECT_EQ(field(R"("text": {"format": {"type": "json_object"}})", "response_format"),
            R"({"type": "json_object"})");
  EXPECT_EQ(field(R"("text": {"format": {"type": "json_schema", "name": "n", "schema": {}}})",
                  "response_format"),
            R"({"type": "json_schema", "json_schema": {"name": "n", "schema": {}}})");
  EXPECT_EQ(field(R"("reasoning": {"effort": "low"})", "reasoning_effort"), "low");
  EXPECT_EQ(field(R"("n": 3)", "n"), "null");
}

class Responses : public FakeServer {
 protected:
  void SetUp() override {
    start({});
    use_template("{% for m in messages %}{{ m.content }}{% endfor %}");
  }
  json::Value ask(const std::string& fields, int tokens = 20) const {
    const ClientResponse response =
        post("/v1/responses", fmt::format(R"({{"max_output_tokens": {}, {}}})", tokens, fields));
    EXPECT_EQ(response.status, 200) << response.body;
    return response.json();
  }
  static std::string said(const json::Value& response) {
    return text_at(response.find("output")->as_array().at(0).find("content")->as_array().at(0),
                   {"text"});
  }
};

TEST_F(Responses, AnswersWholeAndStreamed) {
  const json::Value response = ask(R"("input": "ab", "metadata": {"a": "b"})");
  EXPECT_EQ(said(response), greedy_text("ab", 20));
  EXPECT_EQ(text_at(response, {"status"}), "incomplete");
  EXPECT_EQ(text_at(response, {"metadata"}), R"({"a": "b"})");
  EXPECT_EQ(text_at(response, {"max_output_tokens"}), "20");
  EXPECT_EQ(text_at(response, {"usage", "output_tokens"}), "20");
  const ClientResponse streamed =
      post("/v1/responses", R"({"input": "ab", "max_output_tokens": 20, "stream": true})");
  const std::vector<json::Value> events = streamed.events();
  EXPECT_EQ(text_at(events.front(), {"type"}), "response.created");
  EXPECT_EQ(text_at(events[1], {"type"}), "response.in_progress");
  EXPECT_EQ(text_at(events.back(), {"type"}), "response.incomplete");
  EXPECT_EQ(said(put_together(streamed)), said(response));
}

TEST_F(Responses, GoOnFromTheOneBefore) {
  constexpr int tokens = 4;
  const auto answer = [&](const std::string& conversation) {
    return greedy_text(conversation, tokens);
  };
  // The model could not read again the half of a character, which it likes to say.
  std::string start;
  for (int i = 0; i < 10000; ++i) {
    start.clear();
    for (int rest = i; rest > 0; rest /= 3) start += "abc"[rest % 3];
    const std::string first = start + answer("c" + start) + "b";
    const std::string both = first + answer(first);
    if (std::ranges::all_of(both, [](char c) { return c > 0; }) && i > 0) break;
  }
  const json::Value first =
      ask(fmt::format(R"("input": "{}", "instructions": "c")", start), tokens);
  EXPECT_EQ(said(first), answer("c" + start));
  const json::Value second = ask(
      fmt::format(R"("input": "b", "previous_response_id": "{}")", text_at(first, {"id"})), tokens);
  const std::string conversation = start + said(first) + "b";
  EXPECT_EQ(said(second), answer(conversation)) << "instructions are not inherited";
  const json::Value third =
      ask(fmt::format(R"("input": "a", "previous_response_id": "{}")", text_at(second, {"id"})),
          tokens);
  EXPECT_EQ(said(third), answer(conversation + said(second) + "a"));
}

TEST_F(Responses, AreKeptUntilTheyAreDeleted) {
  const json::Value response = ask(R"("input": "ab")");
  const std::string path = "/v1/responses/" + text_at(response, {"id"});
  Client client(port());
  EXPECT_EQ(client.get(path).json(), response);
  const json::Value items = client.get(path + "/input_items").json();
  EXPECT_EQ(text_at(items.find("data")->as_array().at(0), {"content"}), "ab");
  EXPECT_EQ(text_at(client.ask("DELETE", path).json(), {"deleted"}), "true");
  EXPECT_EQ(client.get(path).status, 404);
  EXPECT_EQ(client.ask("DELETE", path).status, 404);
  EXPECT_EQ(client.ask("PUT", path).headers.at("allow"), "GET, DELETE");
  const std::string unstored = text_at(ask(R"("input": "ab", "store": false)"), {"id"});
  EXPECT_EQ(client.get("/v1/responses/" + unstored).status, 404);
}

TEST_F(Responses, RefuseByTheFieldsOwnName) {
  const auto refused = [&](const std::string& fields, const std::string& param, int status = 400) {
    const ClientResponse response = post("/v1/responses", "{" + fields + "}");
    EXPECT_EQ(response.status, status) << fields << response.body;
    EXPECT_EQ(text_at(response.json(), {"error", "param"}), param) << response.body;
    EXPECT_THAT(text_at(response.json(), {"error", "message"}), HasSubstr(param));
  };
  refused(R"("model": "fake")", "input");
  refused(R"("input": [])", "input");
  const auto with = [&](const std::string& fields, const std::string& param) {
    refused(R"("input": "a", )" + fields, param);
  };
  with(R"("max_output_tokens": 0)", "max_output_tokens");
  with(R"("temperature": 3)", "temperature");
  with(R"("background": true)", "background");
  with(R"("conversation": "c")", "conversation");
  with(R"("tools": [{"type": "web_search"}])", "tools[0].type");
  with(R"("tools": [{"type": "function"}])", "tools[0].name");
  with(R"("tools": [{"type": "function", "name": "f", "parameters": 3}])", "tools[0].parameters");
  with(R"("tool_choice": {"type": "mcp"})", "tool_choice.type");
  with(R"("text": {"format": {"type": "json_schema", "schema": 3}})", "text.format.schema");
  const auto item = [&](const std::string& value, const std::string& param) {
    refused(R"("input": [)" + value + "]", param);
  };
  item(R"({"type": "web_search_call"})", "input[0].type");
  item(R"({"role": "king", "content": "a"})", "input[0].role");
  item(R"({"role": "user", "content": [{"type": "input_image"}]})", "input[0].content[0].type");
  item(R"({"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"})",
       "input[0].arguments");
  refused(R"("input": "a", "previous_response_id": "resp_x")", "previous_response_id", 404);
}

}  // namespace
}  // namespace qnext::server
