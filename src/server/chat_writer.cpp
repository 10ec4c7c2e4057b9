#include "server/chat_writer.h"

#include <utility>

#include "server/logprobs.h"

namespace qnext::server {

ChatWriter::ChatWriter(Options options, size_t choices, const Tokenizer& tokenizer)
    : options_(std::move(options)), tokenizer_(tokenizer), choices_(choices) {}

json::Value ChatWriter::logprobs(const std::vector<ops::SampledToken>& tokens) const {
  if (!options_.logprobs) return nullptr;
  return chat_logprobs(tokenizer_, tokens);
}

std::string ChatWriter::chunk(size_t number, json::Object delta, const AnswerNews& news) const {
  json::Object choice{{"index", static_cast<int64_t>(number)},
                      {"delta", std::move(delta)},
                      {"logprobs", news.tokens.empty() ? json::Value() : logprobs(news.tokens)},
                      {"finish_reason", choices_[number].finish_reason}};
  json::Object object = options_.head.object("chat.completion.chunk", {std::move(choice)});
  if (options_.include_usage) object.set("usage", nullptr);
  return event(object);
}

std::string ChatWriter::begin() {
  std::string out;
  if (!options_.stream) return out;
  for (size_t i = 0; i < choices_.size(); ++i)
    out += chunk(i, {{"role", "assistant"}, {"content", ""}}, {});
  return out;
}

std::string ChatWriter::news(size_t number, const AnswerNews& news) {
  Choice& choice = choices_[number];
  if (news.finish) choice.finish_reason = finish_reason_text(news.finish->reason);
  if (options_.stream) {
    json::Object delta;
    if (!news.text.empty()) delta.set("content", news.text);
    return chunk(number, std::move(delta), news);
  }
  choice.content += news.text;
  choice.tokens.insert(choice.tokens.end(), news.tokens.begin(), news.tokens.end());
  return {};
}

std::string ChatWriter::end(const Usage& usage) {
  json::Array choices;
  if (options_.stream) {
    if (!options_.include_usage) return {};
    json::Object last = options_.head.object("chat.completion.chunk", {});
    last.set("usage", usage.object());
    return event(last);
  }
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    json::Object message{{"role", "assistant"}, {"content", choice.content}, {"refusal", nullptr}};
    choices.emplace_back(json::Object{{"index", static_cast<int64_t>(i)},
                                      {"message", std::move(message)},
                                      {"logprobs", logprobs(choice.tokens)},
                                      {"finish_reason", choice.finish_reason}});
  }
  json::Object whole = options_.head.object("chat.completion", std::move(choices));
  whole.set("usage", usage.object());
  return json::write(whole);
}

}  // namespace qnext::server
