// How /v1/messages writes an answer: blocks of thinking, text and tool_use, streamed as
// message_start, content_block_start, content_block_delta, content_block_stop, message_delta and
// message_stop.
//
// How much of the prompt was cached is known at the end: a stream's message_start counts all of it
// as input_tokens, and message_delta tells it rightly.
#pragma once

#include <cstdint>
#include <string>

#include "server/answer_blocks.h"
#include "server/generation.h"
#include "text/tokenizer.h"

namespace qnext::server {

class MessagesWriter : public ResponseWriter {
 public:
  struct Options {
    std::string id;  // of the request: names of the message and of its calls derive from it
    std::string model;
    bool stream = false;
    bool in_reasoning = false;  // the prompt ended inside "<think>"
    json::Array tools = {};     // that may be called
    int64_t prompt_tokens = 0;
  };
  // The tokenizer must outlive the writer.
  MessagesWriter(Options options, const Tokenizer& tokenizer);

  std::string begin() override;
  std::string news(size_t choice, const AnswerNews& news) override;
  std::string end(const Usage& usage) override;
  std::string fail(const ApiError& error, bool streamed) override;

 private:
  std::string write(const BlockChange& change) const;
  // As it begins, or whole. A call whose arguments were cut off has an empty input.
  json::Object block(size_t number, bool whole) const;
  json::Object usage_object(const Usage& usage) const;
  json::Object message(json::Array content, json::Object usage) const;

  Options options_;
  const Tokenizer& tokenizer_;
  AnswerBlocks blocks_;
  json::Value stop_reason_;
  json::Value stop_sequence_;
};

}  // namespace qnext::server
