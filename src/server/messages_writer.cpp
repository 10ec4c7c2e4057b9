#include "server/messages_writer.h"

#include <utility>

namespace qnext::server {
namespace {

using Kind = AnswerBlock::Kind;
using What = BlockChange::What;

// The type and the rest of the data begin alike in every event.
std::string typed_event(std::string_view type, json::Object more) {
  json::Object data{{"type", type}};
  for (const auto& [name, value] : more) data.set(name, value);
  return named_event(type, data);
}

const char* stop_reason_of(engine::FinishReason reason, bool has_calls) {
  switch (reason) {
    case engine::FinishReason::stop_string:
      return "stop_sequence";
    case engine::FinishReason::length:
      return "max_tokens";
    case engine::FinishReason::context:
      return "model_context_window_exceeded";
    default:
      return has_calls ? "tool_use" : "end_turn";
  }
}

}  // namespace

MessagesWriter::MessagesWriter(Options options, const Tokenizer& tokenizer)
    : options_(std::move(options)),
      tokenizer_(tokenizer),
      blocks_(options_.in_reasoning, options_.tools) {}

json::Object MessagesWriter::usage_object(const Usage& usage) const {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details",
           json::Object{{"thinking_tokens", blocks_.reasoning_tokens(tokenizer_)}}}};
}

json::Object MessagesWriter::block(size_t number, bool whole) const {
  const AnswerBlock& block = blocks_.all()[number];
  const std::string text = whole ? block.text : std::string();
  if (block.kind == Kind::content) return {{"type", "text"}, {"text", text}};
  if (block.kind == Kind::reasoning)
    return {{"type", "thinking"}, {"thinking", text}, {"signature", ""}};
  json::Value input = json::Object{};
  if (!text.empty()) {
    try {
      json::Value read = json::parse(text, "arguments");
      if (read.is_object()) input = std::move(read);
    } catch (const Error&) {
      // Cut off.
    }
  }
  return {{"type", "tool_use"},
          {"id", fmt::format("toolu_{}_{}", options_.id, number)},
          {"name", block.name},
          {"input", std::move(input)}};
}

json::Object MessagesWriter::message(json::Array content, json::Object usage) const {
  return {{"id", "msg_" + options_.id},
          {"type", "message"},
          {"role", "assistant"},
          {"model", options_.model},
          {"content", std::move(content)},
          {"stop_reason", stop_reason_},
          {"stop_sequence", stop_sequence_},
          {"usage", std::move(usage)}};
}

std::string MessagesWriter::begin() {
  if (!options_.stream) return {};
  const Usage usage{.prompt_tokens = options_.prompt_tokens};
  return typed_event("message_start", {{"message", message({}, usage_object(usage))}}) +
         typed_event("ping", {});
}

std::string MessagesWriter::write(const BlockChange& change) const {
  const auto index = static_cast<int64_t>(change.block);
  if (change.what == What::begins)
    return typed_event("content_block_start",
                       {{"index", index}, {"content_block", block(change.block, false)}});
  if (change.what == What::ends) return typed_event("content_block_stop", {{"index", index}});
  json::Object delta;
  switch (blocks_.all()[change.block].kind) {
    case Kind::content:
      delta = {{"type", "text_delta"}, {"text", change.text}};
      break;
    case Kind::reasoning:
      delta = {{"type", "thinking_delta"}, {"thinking", change.text}};
      break;
    case Kind::call:
      delta = {{"type", "input_json_delta"}, {"partial_json", change.text}};
      break;
  }
  return typed_event("content_block_delta", {{"index", index}, {"delta", std::move(delta)}});
}

std::string MessagesWriter::news(size_t /*choice*/, const AnswerNews& news) {
  std::string out;
  for (const BlockChange& change : blocks_.add(news))
    if (options_.stream) out += write(change);
  if (news.finish) {
    stop_reason_ = stop_reason_of(news.finish->reason, blocks_.calls() > 0);
    if (news.finish->reason == engine::FinishReason::stop_string)
      stop_sequence_ = news.finish->stop_string;
  }
  return out;
}

std::string MessagesWriter::end(const Usage& usage) {
  if (options_.stream) {
    json::Object delta{{"stop_reason", stop_reason_}, {"stop_sequence", stop_sequence_}};
    return typed_event("message_delta",
                       {{"delta", std::move(delta)}, {"usage", usage_object(usage)}}) +
           typed_event("message_stop", {});
  }
  json::Array content;
  for (size_t i = 0; i < blocks_.all().size(); ++i) content.emplace_back(block(i, true));
  return json::write(message(std::move(content), usage_object(usage)));
}

std::string MessagesWriter::fail(const ApiError& error, bool streamed) {
  const json::Object body = error.body(ErrorShape::anthropic);
  return streamed ? named_event("error", body) : json::write(body);
}

}  // namespace qnext::server
