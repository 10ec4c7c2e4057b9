#include "server/chat_writer.h"

#include <utility>

#include "server/logprobs.h"

namespace qnext::server {

using Kind = AnswerPart::Kind;

ChatWriter::ChatWriter(Options options, size_t choices, const Tokenizer& tokenizer)
    : options_(std::move(options)), tokenizer_(tokenizer), schemas_(options_.tools) {
  const AnswerParserOptions parser{.in_reasoning = options_.in_reasoning,
                                   .tools = options_.tools.empty() ? nullptr : &schemas_};
  for (size_t i = 0; i < choices; ++i) choices_.emplace_back(parser);
}

json::Value ChatWriter::logprobs(const std::vector<ops::SampledToken>& tokens) const {
  if (!options_.logprobs) return nullptr;
  return chat_logprobs(tokenizer_, tokens);
}

std::string ChatWriter::call_id(size_t number, int call) const {
  return fmt::format("call_{}_{}_{}", options_.head.id.substr(options_.head.id.find('-') + 1),
                     number, call);
}

std::string ChatWriter::chunk(size_t number, json::Object delta,
                              const std::vector<ops::SampledToken>& tokens) const {
  json::Object choice{{"index", static_cast<int64_t>(number)},
                      {"delta", std::move(delta)},
                      {"logprobs", tokens.empty() ? json::Value() : logprobs(tokens)},
                      {"finish_reason", choices_[number].finish_reason}};
  return options_.head.chunk("chat.completion.chunk", {std::move(choice)}, options_.include_usage);
}

json::Object ChatWriter::delta(size_t number, const AnswerPart& part) const {
  if (part.kind == Kind::content) return {{"content", part.text}};
  if (part.kind == Kind::reasoning) return {{"reasoning_content", part.text}};
  json::Object call{{"index", part.call}};
  if (part.kind == Kind::call_name) {
    call.set("id", call_id(number, part.call));
    call.set("type", "function");
    call.set("function", json::Object{{"name", part.text}, {"arguments", ""}});
  } else {
    call.set("function", json::Object{{"arguments", part.text}});
  }
  return {{"tool_calls", json::Array{std::move(call)}}};
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
  std::vector<AnswerPart> parts = choice.parser.push(news.text);
  if (news.finish)
    for (const AnswerPart& part : choice.parser.finish())
      append_part(parts, part.kind, part.call, part.text);

  std::string out;
  if (options_.stream) {
    // The tokens go with the first of what they made, or alone where that is still held back.
    std::vector<ops::SampledToken> tokens = news.tokens;
    for (const AnswerPart& part : parts)
      out += chunk(number, delta(number, part), std::exchange(tokens, {}));
    if (!tokens.empty()) out += chunk(number, {}, tokens);
  } else {
    for (const AnswerPart& part : parts) append_part(choice.parts, part.kind, part.call, part.text);
    choice.tokens.insert(choice.tokens.end(), news.tokens.begin(), news.tokens.end());
  }
  if (news.finish) {
    choice.finish_reason = finish_reason_text(news.finish->reason);
    if (choice.parser.calls() > 0 && choice.finish_reason == json::Value("stop"))
      choice.finish_reason = "tool_calls";
    if (options_.stream) out += chunk(number, {}, {});
  }
  return out;
}

json::Object ChatWriter::message(size_t number) const {
  std::string content;
  std::string reasoning;
  std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
  for (const AnswerPart& part : choices_[number].parts) {
    if (part.kind == Kind::content)
      content += part.text;
    else if (part.kind == Kind::reasoning)
      reasoning += part.text;
    else if (part.kind == Kind::call_name)
      calls.emplace_back(part.text, "");
    else
      calls.back().second += part.text;
  }
  json::Object message{{"role", "assistant"}, {"content", content}, {"refusal", nullptr}};
  if (content.empty() && !calls.empty()) message.set("content", nullptr);
  if (!reasoning.empty()) message.set("reasoning_content", reasoning);
  json::Array list;
  for (size_t i = 0; i < calls.size(); ++i) {
    const json::Object function{{"name", calls[i].first}, {"arguments", calls[i].second}};
    list.emplace_back(json::Object{{"id", call_id(number, static_cast<int>(i))},
                                   {"type", "function"},
                                   {"function", function}});
  }
  if (!list.empty()) message.set("tool_calls", std::move(list));
  return message;
}

std::string ChatWriter::end(const Usage& usage) {
  if (options_.stream) {
    std::string out;
    if (options_.include_usage) out = options_.head.usage_chunk("chat.completion.chunk", usage);
    return out.append(done_event);
  }
  json::Array choices;
  for (size_t i = 0; i < choices_.size(); ++i)
    choices.emplace_back(json::Object{{"index", static_cast<int64_t>(i)},
                                      {"message", message(i)},
                                      {"logprobs", logprobs(choices_[i].tokens)},
                                      {"finish_reason", choices_[i].finish_reason}});
  json::Object whole = options_.head.object("chat.completion", std::move(choices));
  whole.set("usage", usage.object());
  return json::write(whole);
}

}  // namespace qnext::server
