// How chat answers are written: content, reasoning and calls, streamed and whole.
#include "server/chat_writer.h"

#include <gtest/gtest.h>

#include "engine/testing/tiny_tokenizer.h"
#include "server/testing/http_client.h"
#include "server/testing/written_answer.h"

namespace qnext::server {
namespace {

using testing::ClientResponse;

ChatWriter::Options options(bool stream) {
  return {.head = {.id = "chatcmpl-abc", .model = "m", .created = 1},
          .stream = stream,
          .include_usage = false,
          .logprobs = false,
          .in_reasoning = true,
          .tools = testing::weather_tools()};
}

std::string write(ChatWriter& writer, size_t size, engine::FinishReason reason) {
  return testing::write_answer(writer, testing::full_answer, size, {.reason = reason});
}

TEST(ChatWriter, AWholeMessageHasItsPartsApart) {
  const Tokenizer tokenizer = engine::testing::tiny_tokenizer();
  ChatWriter writer(options(false), 1, tokenizer);
  const json::Value body = json::parse(write(writer, 7, engine::FinishReason::stop_token), "body");
  const json::Value& choice = body.find("choices")->as_array()[0];
  EXPECT_EQ(choice.find("finish_reason")->as_string(), "tool_calls");
  const json::Value& message = *choice.find("message");
  EXPECT_EQ(message.find("content")->as_string(), "Let me look.");
  EXPECT_EQ(message.find("reasoning_content")->as_string(), "I think");
  const json::Array& calls = message.find("tool_calls")->as_array();
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].find("id")->as_string(), "call_abc_0_0");
  EXPECT_EQ(calls[0].find("function")->find("arguments")->as_string(), R"({"city": "Berlin"})");
  EXPECT_EQ(calls[1].find("function")->find("name")->as_string(), "weather");
  EXPECT_EQ(calls[1].find("function")->find("arguments")->as_string(), R"({"city": "Rome"})");
}

// Put together as clients do, the deltas are the whole message, however the text was cut.
TEST(ChatWriter, DeltasAddUpToTheMessage) {
  const Tokenizer tokenizer = engine::testing::tiny_tokenizer();
  for (const size_t size : {1, 3, 10, 1000}) {
    ChatWriter writer(options(true), 1, tokenizer);
    ClientResponse response;
    response.body = write(writer, size, engine::FinishReason::stop_token);
    std::string content, reasoning, finish;
    std::vector<std::pair<std::string, std::string>> calls;
    for (const json::Value& event : response.events()) {
      const json::Value& choice = event.find("choices")->as_array()[0];
      EXPECT_EQ(finish, "") << "nothing follows the end";
      if (choice.find("finish_reason")->is_string())
        finish = choice.find("finish_reason")->as_string();
      const json::Value& delta = *choice.find("delta");
      if (const json::Value* text = delta.find("content")) content += text->as_string();
      if (const json::Value* text = delta.find("reasoning_content")) reasoning += text->as_string();
      const json::Value* list = delta.find("tool_calls");
      if (!list) continue;
      const json::Value& call = list->as_array()[0];
      const auto index = static_cast<size_t>(call.find("index")->as_integer());
      if (call.find("id")) {
        ASSERT_EQ(index, calls.size());
        calls.emplace_back(call.find("function")->find("name")->as_string(), "");
      }
      calls.at(index).second += call.find("function")->find("arguments")->as_string();
    }
    EXPECT_EQ(content, "Let me look.");
    EXPECT_EQ(reasoning, "I think");
    EXPECT_EQ(finish, "tool_calls");
    ASSERT_EQ(calls.size(), 2u);
    EXPECT_EQ(calls[0].second, R"({"city": "Berlin"})");
    EXPECT_EQ(calls[1].second, R"({"city": "Rome"})");
  }
}

TEST(ChatWriter, WithoutToolsNothingIsACall) {
  const Tokenizer tokenizer = engine::testing::tiny_tokenizer();
  ChatWriter::Options plain = options(false);
  plain.tools.clear();
  plain.in_reasoning = false;
  ChatWriter writer(plain, 1, tokenizer);
  const json::Value body = json::parse(write(writer, 5, engine::FinishReason::length), "body");
  const json::Value& choice = body.find("choices")->as_array()[0];
  EXPECT_EQ(choice.find("message")->find("content")->as_string(), testing::full_answer);
  EXPECT_EQ(choice.find("finish_reason")->as_string(), "length");
}

}  // namespace
}  // namespace qnext::server
