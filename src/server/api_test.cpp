// What the routes answer: bodies, fields, errors.
#include "server/api.h"

#include <gmock/gmock.h>

#include "server/testing/fake_server.h"

namespace qnext::server {
namespace {

using testing::Client;
using testing::ClientResponse;
using testing::FakeServer;
using ::testing::HasSubstr;

class Apis : public FakeServer {
 protected:
  void expect_refused(const std::string& path, const std::string& body, const std::string& param,
                      int status = 400) const {
    const ClientResponse response = post(path, body);
    EXPECT_EQ(response.status, status) << body << "\n" << response.body;
    const json::Value value = response.json();
    const json::Value* error = value.find("error");
    ASSERT_TRUE(error) << response.body;
    EXPECT_FALSE(error->find("message")->as_string().empty());
    EXPECT_EQ(error->find("type")->as_string(), "invalid_request_error");
    EXPECT_EQ(error->find("param")->is_null() ? "" : error->find("param")->as_string(), param)
        << body << "\n"
        << response.body;
  }
};

TEST_F(Apis, SimpleRoutes) {
  start({});
  Client client(port());
  EXPECT_EQ(client.get("/health").json(), json::Value(json::Object{{"status", "ok"}}));
  const json::Value models = client.get("/v1/models").json();
  EXPECT_EQ(models.find("data")->as_array()[0].find("id")->as_string(), "fake");
  EXPECT_EQ(client.get("/v1/models/fake").json(), models.find("data")->as_array()[0]);
  EXPECT_EQ(client.get("/v1/models/other").status, 404);
  const json::Value tokens = client.post("/tokenize", R"({"prompt": "abc a"})").json();
  EXPECT_EQ(tokens.find("count")->as_integer(), 4);
  EXPECT_EQ(tokens.find("max_model_len")->as_integer(), 1000);
  EXPECT_EQ(
      client.post("/detokenize", json::write(json::Object{{"tokens", *tokens.find("tokens")}}))
          .json()
          .find("prompt")
          ->as_string(),
      "abc a");
  EXPECT_EQ(client.get("/nowhere").status, 404);
  EXPECT_EQ(client.get("/v1/models/f%61ke").status, 200);
  EXPECT_EQ(client.get("/v1/models/fake%").status, 404);
  const ClientResponse wrong = client.get("/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST");
}

TEST_F(Apis, HeadIsGetWithoutTheBody) {
  start({});
  Client client(port());
  const size_t size = client.get("/v1/models").body.size();
  client.send("HEAD /v1/models HTTP/1.1\r\n\r\nOPTIONS /v1/models HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(client.read_until("204 No Content"));
  client.hang_up();
  Client head(port());
  head.send("HEAD /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n");
  ASSERT_TRUE(head.read_until("\r\n\r\n"));
  EXPECT_TRUE(head.read_until(fmt::format("Content-Length: {}\r\n", size)));
  EXPECT_FALSE(head.read_until("{")) << "there is a body";
}

TEST_F(Apis, TheKeyOpensAllRoutesAndHealthNeedsNone) {
  start({.api_key = "secret"});
  const auto status = [&](const std::string& path, const testing::Headers& headers) {
    Client client(port());
    return client.get(path, headers).status;
  };
  EXPECT_EQ(status("/health", {}), 200);
  for (const char* path : {"/v1/models", "/metrics"}) {
    EXPECT_EQ(status(path, {}), 401);
    EXPECT_EQ(status(path, {{"Authorization", "Bearer secre"}}), 401);
    EXPECT_EQ(status(path, {{"Authorization", "Bearer secret2"}}), 401);
    EXPECT_EQ(status(path, {{"Authorization", "Bearer secret"}}), 200);
  }
}

TEST_F(Apis, CompletionsOfSeveralPromptsAndChoices) {
  start({.max_sequences = 3});
  const json::Value body =
      post("/v1/completions",
           R"({"model": "fake", "prompt": ["abc", [1, 2]], "n": 2, "max_tokens": 9, "echo": true})")
          .json();
  EXPECT_EQ(body.find("object")->as_string(), "text_completion");
  const json::Array& choices = body.find("choices")->as_array();
  ASSERT_EQ(choices.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const std::string prompt = i < 2 ? "abc" : "bc";
    EXPECT_EQ(choices[i].find("index")->as_integer(), static_cast<int64_t>(i));
    EXPECT_EQ(choices[i].find("finish_reason")->as_string(), "length");
  }
  EXPECT_EQ(choices[1].find("text")->as_string(), "abc" + greedy_text("abc", 9));
  const json::Value& usage = *body.find("usage");
  const auto prompt_tokens = std::ssize(tokenizer.encode("abc")) + 2;
  EXPECT_EQ(usage.find("prompt_tokens")->as_integer(), prompt_tokens);
  EXPECT_EQ(usage.find("completion_tokens")->as_integer(), 36);
  EXPECT_EQ(usage.find("total_tokens")->as_integer(), prompt_tokens + 36);
  EXPECT_EQ(usage.find("prompt_tokens_details")->find("cached_tokens")->as_integer(), 0);
}

TEST_F(Apis, StreamsTellUsageWhereAsked) {
  start({});
  const ClientResponse response = post(
      "/v1/completions",
      R"({"prompt": "a", "max_tokens": 5, "stream": true, "stream_options": {"include_usage": true}})");
  const std::vector<json::Value> events = response.events();
  for (size_t i = 0; i + 1 < events.size(); ++i) EXPECT_TRUE(events[i].find("usage")->is_null());
  EXPECT_TRUE(events.back().find("choices")->as_array().empty());
  EXPECT_EQ(events.back().find("usage")->find("completion_tokens")->as_integer(), 5);
  EXPECT_EQ(
      events[events.size() - 2].find("choices")->as_array()[0].find("finish_reason")->as_string(),
      "length");
}

TEST_F(Apis, SeedsAndStopsReachTheEngine) {
  start({});
  const auto text = [&](const std::string& more) {
    const json::Value body =
        post("/v1/completions", R"({"prompt": "abc", "max_tokens": 40)" + more + "}").json();
    return body.find("choices")->as_array()[0].find("text")->as_string();
  };
  const std::string greedy = greedy_text("abc", 40);
  EXPECT_EQ(text(""), greedy);
  EXPECT_EQ(text(R"(, "temperature": 1, "seed": 7)"), text(R"(, "temperature": 1, "seed": 7)"));
  EXPECT_NE(text(R"(, "temperature": 1, "seed": 7)"), text(R"(, "temperature": 1, "seed": 8)"));
  EXPECT_EQ(text(R"(, "stop": "c")"), greedy.substr(0, greedy.find('c')));
  EXPECT_EQ(text(R"(, "stop": ["zzz", "b"])"), greedy.substr(0, greedy.find('b')));
  EXPECT_EQ(text(R"(, "stop": null, "unknown": {"x": 1})"), greedy);
}

TEST_F(Apis, LogprobsAreTold) {
  start({});
  const json::Value body =
      post("/v1/completions", R"({"prompt": "abc", "max_tokens": 6, "logprobs": 2})").json();
  const json::Value& logprobs = *body.find("choices")->as_array()[0].find("logprobs");
  EXPECT_EQ(logprobs.find("tokens")->as_array().size(), 6u);
  EXPECT_EQ(logprobs.find("token_logprobs")->as_array()[0].as_double(), -1);
  EXPECT_EQ(logprobs.find("text_offset")->as_array()[0].as_integer(), 0);
}

TEST_F(Apis, TokensOfAnAnswerCanBeAPrompt) {
  start({});
  const json::Value body =
      post("/v1/completions", R"({"prompt": "abc", "max_tokens": 6, "return_token_ids": true})")
          .json();
  const json::Value& choice = body.find("choices")->as_array()[0];
  const json::Array& ids = choice.find("token_ids")->as_array();
  EXPECT_EQ(ids.size(), 6u);
  const std::string tokens = json::write(json::Object{{"tokens", ids}});
  EXPECT_EQ(post("/detokenize", tokens).json().find("prompt")->as_string(),
            choice.find("text")->as_string());
}

TEST_F(Apis, EveryFieldIsCheckedAndNamed) {
  start({});
  const auto completion = [&](const std::string& fields, const std::string& param) {
    expect_refused("/v1/completions", R"({"prompt": "a", )" + fields + "}", param);
  };
  completion(R"("temperature": 3)", "temperature");
  completion(R"("temperature": "hot")", "temperature");
  completion(R"("top_p": 0)", "top_p");
  completion(R"("top_k": -2)", "top_k");
  completion(R"("top_k": 1.5)", "top_k");
  completion(R"("min_p": 2)", "min_p");
  completion(R"("presence_penalty": 3)", "presence_penalty");
  completion(R"("frequency_penalty": -3)", "frequency_penalty");
  completion(R"("repetition_penalty": 0)", "repetition_penalty");
  completion(R"("max_tokens": 0)", "max_tokens");
  completion(R"("n": 0)", "n");
  completion(R"("n": 1000)", "n");
  completion(R"("stop": [""])", "stop");
  completion(R"("stop": [1])", "stop");
  completion(R"("stop_token_ids": [-1])", "stop_token_ids");
  completion(R"("seed": "x")", "seed");
  completion(R"("logit_bias": {"a": 1})", "logit_bias");
  completion(R"("logit_bias": {"1": 200})", "logit_bias.1");
  completion(R"("logit_bias": {"100000": 1})", "logit_bias");
  completion(R"("logprobs": 21)", "logprobs");
  completion(R"("stream": 1)", "stream");
  completion(R"("stream_options": {"include_usage": true})", "stream_options");
  completion(R"("stream": true, "stream_options": {"include_usage": 1})",
             "stream_options.include_usage");
  completion(R"("suffix": "x")", "suffix");
  completion(R"("echo": true, "logprobs": 1)", "echo");
  expect_refused("/v1/completions", R"({"prompt": ""})", "prompt");
  expect_refused("/v1/completions", R"({"prompt": []})", "prompt");
  expect_refused("/v1/completions", R"({"prompt": [99999]})", "prompt");
  expect_refused("/v1/completions", R"({"prompt": ["a", 1]})", "prompt");
  expect_refused("/v1/completions", R"({})", "prompt");
  expect_refused("/v1/completions", R"([])", "");
  expect_refused("/v1/completions", R"({"prompt")", "");
  expect_refused("/v1/completions", R"({"prompt": "a", "model": "gpt"})", "model", 404);
  const std::string longest = json::write(json::Object{{"prompt", std::string(4000, 'a')}});
  const ClientResponse response = post("/v1/completions", longest);
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json().find("error")->find("code")->as_string(), "context_length_exceeded");
}

TEST_F(Apis, ChatAnswersWithTheNextMessage) {
  start({});
  use_template("{% for m in messages %}{{ m.content }}{% endfor %}");
  const std::string request =
      R"("messages": [{"role": "user", "content": "ab"},
                      {"role": "assistant", "content": null},
                      {"role": "user", "content": [{"type": "text", "text": "c"}]}],
         "max_completion_tokens": 30)";
  const json::Value whole = post("/v1/chat/completions", "{" + request + "}").json();
  EXPECT_EQ(whole.find("object")->as_string(), "chat.completion");
  const json::Value& choice = whole.find("choices")->as_array()[0];
  EXPECT_EQ(choice.find("message")->find("role")->as_string(), "assistant");
  EXPECT_EQ(choice.find("message")->find("content")->as_string(), greedy_text("abc", 30));
  EXPECT_EQ(choice.find("finish_reason")->as_string(), "length");

  const ClientResponse streamed =
      post("/v1/chat/completions", R"({"stream": true, "n": 2, )" + request + "}");
  EXPECT_TRUE(streamed.done());
  std::string texts[2];
  for (const json::Value& event : streamed.events()) {
    const json::Value& delta = event.find("choices")->as_array()[0];
    if (const json::Value* content = delta.find("delta")->find("content"))
      texts[delta.find("index")->as_integer()] += content->as_string();
  }
  EXPECT_EQ(texts[0], greedy_text("abc", 30));
  EXPECT_EQ(texts[1], texts[0]);
}

TEST_F(Apis, ChatLogprobsAreThoseOfTheTokens) {
  start({});
  use_template("{{ messages[0].content }}");
  const json::Value body =
      post("/v1/chat/completions",
           R"({"messages": [{"role": "user", "content": "ab"}], "max_tokens": 6,
               "logprobs": true, "top_logprobs": 1})")
          .json();
  const json::Array& content =
      body.find("choices")->as_array()[0].find("logprobs")->find("content")->as_array();
  ASSERT_EQ(content.size(), 6u);
  EXPECT_EQ(content[0].find("logprob")->as_double(), -1);
}

TEST_F(Apis, TemplatesSeeWhatTheyWereWrittenFor) {
  start({});
  use_template(
      "{{ messages[0].role }} {{ messages[1].tool_calls[0].function.arguments.x + 1 }} "
      "{{ messages[2].content }} {{ tools[0].function.name }} {{ mood }}");
  const json::Value tokens = post("/tokenize",
                                  R"({"messages": [
      {"role": "developer", "content": "c"},
      {"role": "assistant", "tool_calls": [{"id": "1", "type": "function",
        "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
      {"role": "tool", "tool_call_id": "1", "content": "ok"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "chat_template_kwargs": {"mood": "gay"}})")
                                 .json();
  std::vector<int32_t> ids;
  for (const json::Value& token : tokens.find("tokens")->as_array())
    ids.push_back(static_cast<int32_t>(token.as_integer()));
  EXPECT_EQ(tokenizer.decode(ids), "system 2 ok f gay");
}

TEST_F(Apis, ChatRefusesWhatItCannotDo) {
  start({});
  expect_refused("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "a"}]})", "");
  use_template(
      "{{ messages[0].content }}{% if messages[0].content == 'b' %}{{ "
      "raise_exception('no b') }}{% endif %}");
  const auto chat = [&](const std::string& fields, const std::string& param) {
    expect_refused("/v1/chat/completions",
                   R"({"messages": [{"role": "user", "content": "a"}], )" + fields + "}", param);
  };
  chat(R"("response_format": {"type": "yaml"})", "response_format.type");
  chat(R"("response_format": {"type": "json_schema"})", "response_format.json_schema");
  chat(R"("tool_choice": "required")", "tool_choice");
  chat(R"("tool_choice": "perhaps")", "tool_choice");
  chat(R"("tool_choice": {"type": "function", "function": {"name": "f"}})",
       "tool_choice.function.name");
  chat(R"("guided_json": 3)", "guided_json");
  chat(R"("guided_choice": [])", "guided_choice");
  chat(R"("guided_grammar": "root ::= x")", "guided_grammar");
  chat(R"("response_format": {"type": "json_object"}, "guided_regex": "a")", "guided_regex");
  chat(R"("tools": [{"type": "function"}])", "tools[0].function");
  chat(R"("top_logprobs": 3)", "top_logprobs");
  chat(R"("chat_template_kwargs": 3)", "chat_template_kwargs");
  const auto messages = [&](const std::string& list, const std::string& param) {
    expect_refused("/v1/chat/completions", R"({"messages": )" + list + "}", param);
  };
  messages("[]", "messages");
  messages("3", "messages");
  messages(R"([{"role": "user", "content": "b"}])", "messages");
  messages(R"([{"role": "king", "content": "b"}])", "messages[0].role");
  messages(R"([{"role": "user"}])", "messages[0].content");
  messages(R"([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])",
           "messages[0].content[0].type");
  messages(R"([{"role": "assistant", "tool_calls": [{"function": {"name": "f",
                "arguments": "{"}}]}])",
           "messages[0].tool_calls[0].function.arguments");
}

TEST_F(Apis, MetricsCount) {
  start({});
  Client client(port());
  client.post("/v1/completions", R"({"prompt": "abc", "max_tokens": 12})");
  client.post("/v1/completions", R"({"prompt": "abc", "n": 0})");
  expect_all_free();
  const ClientResponse response = client.get("/metrics");
  EXPECT_THAT(response.headers.at("content-type"), HasSubstr("version=0.0.4"));
  for (const char* line :
       {"qnext_http_responses_total{route=\"/v1/completions\",status=\"200\"} 1\n",
        "qnext_http_responses_total{route=\"/v1/completions\",status=\"400\"} 1\n",
        "qnext_answers_total{reason=\"length\"} 1\n", "qnext_generated_tokens_total 12\n",
        "qnext_running 0\n", "qnext_waiting 0\n", "qnext_first_token_seconds_count 1\n",
        "qnext_token_seconds_count 11\n", "qnext_first_token_seconds_bucket{le=\"+Inf\"} 1\n"})
    EXPECT_THAT(response.body, HasSubstr(line));
}

}  // namespace
}  // namespace qnext::server
