#include "server/logprobs.h"

#include <algorithm>
#include <span>
#include <utility>

namespace qnext::server {
namespace {

// JSON has no infinity; OpenAI's servers say so for what is all but impossible.
constexpr double least_logprob = -9999;

double told(float logprob) {
  return logprob >= least_logprob ? static_cast<double>(logprob) : least_logprob;
}

std::string token_text(const Tokenizer& tokenizer, int32_t token) {
  return tokenizer.decode(std::span(&token, 1));
}

json::Object entry(const Tokenizer& tokenizer, int32_t token, float logprob) {
  json::Array bytes;
  for (const char byte : tokenizer.token_bytes(token))
    bytes.emplace_back(static_cast<int>(static_cast<unsigned char>(byte)));
  return {{"token", token_text(tokenizer, token)},
          {"logprob", told(logprob)},
          {"bytes", std::move(bytes)}};
}

int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; });
}

}  // namespace

json::Object chat_logprobs(const Tokenizer& tokenizer,
                           const std::vector<ops::SampledToken>& tokens) {
  json::Array content;
  for (const ops::SampledToken& token : tokens) {
    json::Object object = entry(tokenizer, token.token, token.logprob);
    json::Array top;
    for (const ops::TokenLogprob& other : token.top)
      top.emplace_back(entry(tokenizer, other.token, other.logprob));
    object.set("top_logprobs", std::move(top));
    content.emplace_back(std::move(object));
  }
  return {{"content", std::move(content)}};
}

json::Object completion_logprobs(const Tokenizer& tokenizer,
                                 const std::vector<ops::SampledToken>& tokens, int64_t& offset) {
  json::Array texts;
  json::Array logprobs;
  json::Array tops;
  json::Array offsets;
  for (const ops::SampledToken& token : tokens) {
    std::string text = token_text(tokenizer, token.token);
    json::Object top;
    for (const ops::TokenLogprob& other : token.top)
      top.set(token_text(tokenizer, other.token), told(other.logprob));
    offsets.emplace_back(offset);
    offset += characters(text);
    texts.emplace_back(std::move(text));
    logprobs.emplace_back(told(token.logprob));
    tops.emplace_back(std::move(top));
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace qnext::server
