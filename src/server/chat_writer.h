// How /v1/chat/completions writes answers: reasoning as reasoning_content, calls as tool_calls
// whose arguments stream, the rest as content.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/generation.h"
#include "server/response_head.h"
#include "text/answer_parser.h"
#include "text/tokenizer.h"

namespace qnext::server {

class ChatWriter : public ResponseWriter {
 public:
  struct Options {
    ResponseHead head;
    bool stream = false;
    bool include_usage = false;
    bool logprobs = false;
    bool in_reasoning = false;  // the prompt ended inside "<think>"
    json::Array tools = {};     // that may be called; empty: no calls are looked for
  };
  // The tokenizer must outlive the writer.
  ChatWriter(Options options, size_t choices, const Tokenizer& tokenizer);

  std::string begin() override;
  std::string news(size_t choice, const AnswerNews& news) override;
  std::string end(const Usage& usage) override;

 private:
  struct Choice {
    explicit Choice(const AnswerParserOptions& options) : parser(options) {}
    AnswerParser parser;
    json::Value finish_reason;
    std::vector<AnswerPart> parts;  // of a whole answer
    std::vector<ops::SampledToken> tokens;
  };
  std::string chunk(size_t number, json::Object delta,
                    const std::vector<ops::SampledToken>& tokens) const;
  json::Object delta(size_t number, const AnswerPart& part) const;
  json::Object message(size_t number) const;
  std::string call_id(size_t number, int call) const;
  json::Value logprobs(const std::vector<ops::SampledToken>& tokens) const;

  Options options_;
  const Tokenizer& tokenizer_;
  ToolSchemas schemas_;
  std::vector<Choice> choices_;
};

}  // namespace qnext::server
