// How /v1/chat/completions writes answers.
#pragma once

#include <string>
#include <vector>

#include "server/generation.h"
#include "server/response_head.h"
#include "text/tokenizer.h"

namespace qnext::server {

class ChatWriter : public ResponseWriter {
 public:
  struct Options {
    ResponseHead head;
    bool stream = false;
    bool include_usage = false;
    bool logprobs = false;
  };
  // The tokenizer must outlive the writer.
  ChatWriter(Options options, size_t choices, const Tokenizer& tokenizer);

  std::string begin() override;
  std::string news(size_t choice, const AnswerNews& news) override;
  std::string end(const Usage& usage) override;

 private:
  struct Choice {
    json::Value finish_reason;
    std::string content;
    std::vector<ops::SampledToken> tokens;
  };
  std::string chunk(size_t number, json::Object delta, const AnswerNews& news) const;
  json::Value logprobs(const std::vector<ops::SampledToken>& tokens) const;

  Options options_;
  const Tokenizer& tokenizer_;
  std::vector<Choice> choices_;
};

}  // namespace qnext::server
