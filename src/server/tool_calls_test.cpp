// Tool calls under tool_choice "auto" from end to end: a model that writes a given text, the real
// engine, grammars and routes, and what clients of three APIs hear, streamed and whole.
#include <algorithm>

#include "server/testing/scripted_server.h"

namespace qnext::server {
namespace {

using testing::ClientResponse;

struct Call {
  std::string name;
  std::string arguments;
  bool operator==(const Call&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Call& call) {
  return out << call.name << call.arguments;
}

struct Heard {
  std::string reasoning = {};
  std::string content = {};
  std::vector<Call> calls = {};
  std::string finish = {};
  int pieces = 0;  // of arguments
  bool operator==(const Heard& other) const {
    return reasoning == other.reasoning && content == other.content && calls == other.calls &&
           finish == other.finish;
  }
};
std::ostream& operator<<(std::ostream& out, const Heard& heard) {
  out << "[" << heard.reasoning << "][" << heard.content << "]";
  for (const Call& call : heard.calls) out << "[" << call << "]";
  return out << heard.finish;
}

const json::Value* at(const json::Value& value, std::initializer_list<const char*> path) {
  const json::Value* found = &value;
  for (const char* name : path) found = found ? found->find(name) : nullptr;
  return found;
}
std::string text(const json::Value& value, std::initializer_list<const char*> path) {
  const json::Value* found = at(value, path);
  return found && found->is_string() ? found->as_string() : "";
}

const char* const weather = R"({"type": "object", "properties": {"city": {"type": "string",
    "enum": ["Rome", "Verona"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city"], "additionalProperties": false})";
const char* const note = R"({"type": "object", "properties": {"text": {"type": "string"},
    "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}}, "required": ["text"],
    "additionalProperties": false})";

json::Value request(json::Array tools, bool stream) {
  const json::Object message{{"role", "user"}, {"content", "Well?"}};
  return json::Object{{"messages", json::Array{message}},
                      {"tools", std::move(tools)},
                      {"max_tokens", 300},
                      {"temperature", 0},
                      {"stream", stream}};
}

// --- /v1/chat/completions -----------------------------------------------------------------------

json::Value chat_request(bool stream) {
  json::Array tools;
  for (const auto& [name, schema] : {std::pair{"weather", weather}, {"note", note}})
    tools.push_back(json::Object{
        {"type", "function"},
        {"function", json::Object{{"name", name}, {"parameters", json::parse(schema, "schema")}}}});
  return request(std::move(tools), stream);
}

Heard hear_chat(const ClientResponse& response, bool stream) {
  Heard heard;
  if (!stream) {
    const json::Value body = response.json();
    const json::Value& choice = body.find("choices")->as_array()[0];
    heard.reasoning = text(choice, {"message", "reasoning_content"});
    heard.content = text(choice, {"message", "content"});
    heard.finish = text(choice, {"finish_reason"});
    if (const json::Value* calls = at(choice, {"message", "tool_calls"}))
      for (const json::Value& call : calls->as_array())
        heard.calls.push_back(
            {text(call, {"function", "name"}), text(call, {"function", "arguments"})});
    return heard;
  }
  for (const json::Value& event : response.events())
    for (const json::Value& choice : event.find("choices")->as_array()) {
      heard.reasoning += text(choice, {"delta", "reasoning_content"});
      heard.content += text(choice, {"delta", "content"});
      heard.finish += text(choice, {"finish_reason"});
      const json::Value* calls = at(choice, {"delta", "tool_calls"});
      if (!calls) continue;
      for (const json::Value& call : calls->as_array()) {
        if (call.find("id")) heard.calls.push_back({text(call, {"function", "name"}), ""});
        heard.calls.back().arguments += text(call, {"function", "arguments"});
        ++heard.pieces;
      }
    }
  return heard;
}

// --- /v1/responses ------------------------------------------------------------------------------

json::Value responses_request(bool stream) {
  json::Array tools;
  for (const auto& [name, schema] : {std::pair{"weather", weather}, {"note", note}})
    tools.push_back(json::Object{{"type", "function"},
                                 {"name", name},
                                 {"strict", true},
                                 {"parameters", json::parse(schema, "schema")}});
  return json::Object{{"input", "Well?"},
                      {"tools", std::move(tools)},
                      {"max_output_tokens", 300},
                      {"temperature", 0},
                      {"stream", stream}};
}

void hear_items(const json::Value& response, Heard& heard) {
  for (const json::Value& item : response.find("output")->as_array()) {
    const std::string type = text(item, {"type"});
    if (type == "function_call") {
      heard.calls.push_back({text(item, {"name"}), text(item, {"arguments"})});
      continue;
    }
    (type == "reasoning" ? heard.reasoning : heard.content) +=
        text(item.find("content")->as_array()[0], {"text"});
  }
  heard.finish = text(response, {"status"});
}

Heard hear_response(const ClientResponse& response, bool stream) {
  Heard heard;
  if (!stream) {
    hear_items(response.json(), heard);
    return heard;
  }
  Heard whole;
  for (const json::Value& event : response.events()) {
    const std::string type = text(event, {"type"});
    if (type == "response.output_item.added" && text(event, {"item", "type"}) == "function_call")
      heard.calls.push_back({text(event, {"item", "name"}), ""});
    if (type == "response.function_call_arguments.delta") {
      heard.calls.back().arguments += text(event, {"delta"});
      ++heard.pieces;
    }
    if (type == "response.reasoning_text.delta") heard.reasoning += text(event, {"delta"});
    if (type == "response.output_text.delta") heard.content += text(event, {"delta"});
    if (type == "response.completed") hear_items(*event.find("response"), whole);
  }
  heard.finish = whole.finish;
  EXPECT_EQ(heard, whole);
  return heard;
}

// --- /v1/messages -------------------------------------------------------------------------------

json::Value messages_request(bool stream) {
  json::Array tools;
  for (const auto& [name, schema] : {std::pair{"weather", weather}, {"note", note}})
    tools.push_back(json::Object{{"name", name}, {"input_schema", json::parse(schema, "schema")}});
  return request(std::move(tools), stream);
}

Heard hear_message(const ClientResponse& response, bool stream) {
  Heard heard;
  if (!stream) {
    const json::Value body = response.json();
    for (const json::Value& block : body.find("content")->as_array()) {
      heard.reasoning += text(block, {"thinking"});
      heard.content += text(block, {"text"});
      if (text(block, {"type"}) == "tool_use")
        heard.calls.push_back({text(block, {"name"}), json::write(*block.find("input"))});
    }
    heard.finish = text(body, {"stop_reason"});
    return heard;
  }
  for (const json::Value& event : response.events()) {
    if (text(event, {"content_block", "type"}) == "tool_use")
      heard.calls.push_back({text(event, {"content_block", "name"}), ""});
    heard.reasoning += text(event, {"delta", "thinking"});
    heard.content += text(event, {"delta", "text"});
    heard.finish += text(event, {"delta", "stop_reason"});
    if (text(event, {"delta", "type"}) != "input_json_delta") continue;
    heard.calls.back().arguments += text(event, {"delta", "partial_json"});
    ++heard.pieces;
  }
  return heard;
}

// --- all of them --------------------------------------------------------------------------------

// Arguments that the schema of weather allows.
constexpr const char* allowed = "allowed";

bool allows(const json::Value& arguments) {
  const std::string city = text(arguments, {"city"});
  const json::Value* days = arguments.find("days");
  return (city == "Rome" || city == "Verona") && arguments.as_object().size() == (days ? 2u : 1u) &&
         (!days || (days->is_integer() && days->as_integer() >= 1 && days->as_integer() <= 9));
}

class ToolCalls : public testing::ScriptedServer {
 protected:
  // What each API must say of an answer that wants to be `written`; what its end is called is
  // known.
  void expect(const std::string& written, Heard expected) {
    SCOPED_TRACE(written);
    script = written;
    struct Route {
      const char* path;
      json::Value (*request)(bool);
      Heard (*hear)(const ClientResponse&, bool);
      const char* stop;
      const char* called;
    };
    // The answer is the same with drafts, which masks may reject.
    for (const bool stream : {false, true}) {
      model.speculate = stream ? 2 : 0;
      for (const Route& route :
           {Route{"/v1/chat/completions", chat_request, hear_chat, "stop", "tool_calls"},
            Route{"/v1/responses", responses_request, hear_response, "completed", "completed"},
            Route{"/v1/messages", messages_request, hear_message, "end_turn", "tool_use"}}) {
        SCOPED_TRACE(route.path);
        expected.finish = expected.calls.empty() ? route.stop : route.called;
        const ClientResponse response = post(route.path, route.request(stream));
        ASSERT_EQ(response.status, 200) << response.body;
        Heard heard = route.hear(response, stream);
        EXPECT_GE(heard.pieces, stream ? std::ssize(heard.calls) : 0);
        for (size_t i = 0; i < heard.calls.size(); ++i) {
          std::string& arguments = heard.calls[i].arguments;
          const json::Value read = json::parse(arguments, "arguments");
          const bool any = i < expected.calls.size() && expected.calls[i].arguments == allowed;
          arguments = any && allows(read) ? allowed : json::write(read);
        }
        EXPECT_EQ(heard, expected) << response.body;
      }
    }
  }
};

constexpr const char* plain = "A <tool_calls> is {none} of </tool_call>\n\nthat.";
constexpr const char* call_begin = "Let me see.\n<tool_call>\n";
constexpr const char* call_end = "\n</tool_call>";
constexpr const char* thoughts = "<think>\nHm.\n</think>\n\n";

TEST_F(ToolCalls, InJson) {
  start("Qwen3-0.6B");
  expect(plain, {.content = plain});
  expect(std::string(thoughts) + call_begin +
             R"({"name": "weather", "arguments": {"city": "Rome", "days": 3}})" + call_end,
         {"Hm.", "Let me see.", {{"weather", R"({"city": "Rome", "days": 3})"}}});
  const std::string two[] = {R"({"city": "Verona"})",
                             R"({"text": "</tool_call> \n\"x\"", "tags": ["b", "a"]})"};
  expect(fmt::format("{0}{{\"name\": \"weather\", \"arguments\": {2}}}{1}\n<tool_call>\n"
                     "{{\"name\": \"note\", \"arguments\": {3}}}{1}",
                     call_begin, call_end, two[0], two[1]),
         {"", "Let me see.", {{"weather", two[0]}, {"note", two[1]}}});
}

TEST_F(ToolCalls, ArgumentsComeAsTheyAreWritten) {
  start("Qwen3-0.6B");
  step_time = std::chrono::milliseconds(5);
  script = std::string("<tool_call>\n") +
           R"({"name": "note", "arguments": {"text": "one two three four five six seven"}})" +
           call_end;
  EXPECT_GE(hear_chat(post("/v1/chat/completions", chat_request(true)), true).pieces, 5);
  EXPECT_GE(hear_response(post("/v1/responses", responses_request(true)), true).pieces, 5);
  EXPECT_GE(hear_message(post("/v1/messages", messages_request(true)), true).pieces, 5);
}

// Where the script leaves the schema, or the call before its end, the answer does not.
TEST_F(ToolCalls, InJsonCannotLeaveTheSchema) {
  start("Qwen3-0.6B");
  for (const char* inside : {R"({"name": "weather", "arguments": {"city": "Romeo"}})",
                             R"({"name": "weather", "arguments": {"city": "Rome", "when": "now"}})",
                             R"({"name": "weather", "arguments": {"city": "Rome", "days": 30}})",
                             R"({"name": "weather", "arguments": {"days": 3}})",
                             R"({"name": "weathers", "arguments": {"city": "Rome"}})",
                             R"({"name": "weather", "args": {"city": "Rome"}})"})
    expect(std::string(thoughts) + call_begin + inside + call_end,
           {"Hm.", "Let me see.", {{"weather", allowed}}});
  expect(std::string(call_begin) + R"({"name": "weather", "arguments": {"city": "R)",
         {"", "Let me see.", {{"weather", allowed}}});
}

TEST_F(ToolCalls, InXml) {
  start("Qwen3-Coder");
  expect(plain, {.content = plain});
  expect(std::string(call_begin) +
             "<function=note>\n<parameter=text>\nIt \"is\" <b>so</b>,\nhe said.\n</parameter>\n"
             "<parameter=tags>\n[\"a\"]\n</parameter>\n</function>" +
             call_end,
         {"",
          "Let me see.",
          {{"note", R"({"text": "It \"is\" <b>so</b>,\nhe said.", "tags": ["a"]})"}}});
  expect(std::string(call_begin) + "<function=weather>\n<parameter=city>\nR",
         {"", "Let me see.", {{"weather", allowed}}});
}

TEST_F(ToolCalls, InXmlBehindReasoningCannotLeaveTheSchema) {
  start("Qwen3.5-4B");
  for (const char* parameters :
       {"<parameter=city>\nVerona\n</parameter>\n", "<parameter=city>\nRomeo\n</parameter>\n",
        "<parameter=days>\n3\n</parameter>\n",
        "<parameter=city>\nRome\n</parameter>\n<parameter=when>\nnow\n</parameter>\n"})
    expect(std::string(thoughts) + call_begin + "<function=weather>\n" + parameters +
               "</function>" + call_end,
           {"Hm.", "Let me see.", {{"weather", allowed}}});
}

}  // namespace
}  // namespace qnext::server
