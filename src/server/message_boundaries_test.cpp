// The boundaries of messages under the family's own templates and tokenizer.
#include "server/message_boundaries.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "text/chat_template.h"

namespace qnext::server {
namespace {

const std::string templates = QNEXT_SOURCE_DIR "/tests/data/chat-templates/";

json::Object conversation() {
  return json::parse(R"({"messages": [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "What is the weather in Rome? <b>\n\n"},
    {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [
      {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}]},
    {"role": "tool", "content": "fair"},
    {"role": "assistant", "content": "It is fair."},
    {"role": "user", "content": "Thanks."}],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
    "add_generation_prompt": true})",
                     "variables")
      .as_object();
}

// A boundary has the end of a message before it and the start of another behind it; the last one
// stands before the assistant's turn.
TEST(MessageBoundaries, AreWhereMessagesEnd) {
  const Tokenizer tokenizer = Tokenizer::load(QNEXT_QWEN3_TOKENIZER);
  for (const char* name : {"Qwen3-0.6B", "Qwen3-Coder", "Qwen3.5-4B"}) {
    const ChatTemplate chat(read_file(templates + name + ".jinja"));
    const std::string text = chat.render(conversation());
    const std::vector<int32_t> tokens = tokenizer.encode(text);
    const std::vector<int64_t> places = message_boundaries(tokens, tokenizer);
    EXPECT_EQ(places.size(), 6u) << name << text;
    for (const int64_t place : places) {
      const auto at = static_cast<size_t>(place);
      const std::string before = tokenizer.decode(std::span(tokens).first(at));
      EXPECT_TRUE(before.ends_with("<|im_end|>\n")) << before;
      EXPECT_EQ(before, text.substr(0, before.size()));
      EXPECT_EQ(text.compare(before.size(), 12, "<|im_start|>"), 0);
    }
    const std::string turn =
        tokenizer.decode(std::span(tokens).subspan(static_cast<size_t>(places.back())));
    EXPECT_TRUE(turn.starts_with("<|im_start|>assistant\n")) << turn;
  }
}

TEST(MessageBoundaries, AreNoneWithoutSpecialTokens) {
  const Tokenizer tokenizer = Tokenizer::load(QNEXT_QWEN3_TOKENIZER);
  EXPECT_TRUE(message_boundaries(tokenizer.encode("ROMEO:\nBut soft\n"), tokenizer).empty());
  EXPECT_TRUE(message_boundaries({}, tokenizer).empty());
}

}  // namespace
}  // namespace qnext::server
