#include "server/responses_writer.h"

#include <utility>

namespace qnext::server {
namespace {

using Kind = AnswerBlock::Kind;
using What = BlockChange::What;

}  // namespace

ResponsesWriter::ResponsesWriter(Options options, const Tokenizer& tokenizer)
    : options_(std::move(options)),
      tokenizer_(tokenizer),
      blocks_(options_.in_reasoning, options_.tools) {}

std::string ResponsesWriter::event(std::string_view type, json::Object more) {
  json::Object data{{"type", type}, {"sequence_number", sequence_number_++}};
  for (const auto& [name, value] : more) data.set(name, value);
  return named_event(type, data);
}

std::string ResponsesWriter::item_id(size_t number) const {
  const Kind kind = blocks_.all()[number].kind;
  const char* prefix = kind == Kind::content ? "msg" : kind == Kind::reasoning ? "rs" : "fc";
  return fmt::format("{}_{}_{}", prefix, options_.id, number);
}

const char* ResponsesWriter::item_status(size_t number) const {
  return cut_off_ && number + 1 == blocks_.all().size() ? "incomplete" : "completed";
}

json::Object ResponsesWriter::part(size_t number, bool whole) const {
  const AnswerBlock& block = blocks_.all()[number];
  const std::string text = whole ? block.text : std::string();
  if (block.kind == Kind::reasoning) return {{"type", "reasoning_text"}, {"text", text}};
  return {{"type", "output_text"},
          {"text", text},
          {"annotations", json::Array{}},
          {"logprobs", json::Array{}}};
}

json::Object ResponsesWriter::item(size_t number, bool whole) const {
  const AnswerBlock& block = blocks_.all()[number];
  json::Object item{{"id", item_id(number)},
                    {"status", whole ? item_status(number) : "in_progress"}};
  json::Array content;
  if (whole && block.kind != Kind::call) content.emplace_back(part(number, true));
  switch (block.kind) {
    case Kind::reasoning:
      item.set("type", "reasoning");
      item.set("summary", json::Array{});
      item.set("content", std::move(content));
      break;
    case Kind::content:
      item.set("type", "message");
      item.set("role", "assistant");
      item.set("content", std::move(content));
      break;
    case Kind::call:
      item.set("type", "function_call");
      item.set("call_id", fmt::format("call_{}_{}", options_.id, number));
      item.set("name", block.name);
      item.set("arguments", whole ? block.text : std::string());
      break;
  }
  return item;
}

json::Object ResponsesWriter::usage_object(const Usage& usage) const {
  const int64_t reasoning = blocks_.reasoning_tokens(tokenizer_);
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", json::Object{{"cached_tokens", usage.cached_tokens}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", json::Object{{"reasoning_tokens", reasoning}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

json::Object ResponsesWriter::response(const char* status) const {
  json::Value incomplete;
  if (cut_off_) incomplete = json::Object{{"reason", "max_output_tokens"}};
  json::Array output;
  // Items of an answer that goes on come with events of their own.
  if (std::string_view(status) != "in_progress")
    for (size_t i = 0; i < blocks_.all().size(); ++i) output.emplace_back(item(i, true));
  json::Object response{{"id", "resp_" + options_.id},
                        {"object", "response"},
                        {"created_at", options_.created},
                        {"status", status},
                        {"background", false},
                        {"error", error_},
                        {"incomplete_details", std::move(incomplete)},
                        {"model", options_.model},
                        {"output", std::move(output)},
                        {"usage", usage_}};
  for (const auto& [name, value] : options_.told_again) response.set(name, value);
  return response;
}

std::string ResponsesWriter::begin() {
  if (!options_.stream) return {};
  std::string out = event("response.created", {{"response", response("in_progress")}});
  return out + event("response.in_progress", {{"response", response("in_progress")}});
}

std::string ResponsesWriter::write_begin(size_t number) {
  const auto index = static_cast<int64_t>(number);
  std::string out =
      event("response.output_item.added", {{"output_index", index}, {"item", item(number, false)}});
  if (blocks_.all()[number].kind != Kind::call)
    out += event("response.content_part.added", {{"item_id", item_id(number)},
                                                 {"output_index", index},
                                                 {"content_index", 0},
                                                 {"part", part(number, false)}});
  return out;
}

std::string ResponsesWriter::write_text(size_t number, const std::string& text) {
  const Kind kind = blocks_.all()[number].kind;
  json::Object data{{"item_id", item_id(number)}, {"output_index", static_cast<int64_t>(number)}};
  if (kind != Kind::call) data.set("content_index", 0);
  data.set("delta", text);
  if (kind == Kind::call) return event("response.function_call_arguments.delta", data);
  if (kind == Kind::reasoning) return event("response.reasoning_text.delta", data);
  data.set("logprobs", json::Array{});
  return event("response.output_text.delta", data);
}

std::string ResponsesWriter::write_end(size_t number) {
  const AnswerBlock& block = blocks_.all()[number];
  const auto index = static_cast<int64_t>(number);
  json::Object data{{"item_id", item_id(number)}, {"output_index", index}};
  std::string out;
  if (block.kind == Kind::call) {
    data.set("name", block.name);
    data.set("arguments", block.text);
    out = event("response.function_call_arguments.done", data);
  } else {
    data.set("content_index", 0);
    json::Object text = data;
    text.set("text", block.text);
    if (block.kind == Kind::content) text.set("logprobs", json::Array{});
    out = event(
        block.kind == Kind::content ? "response.output_text.done" : "response.reasoning_text.done",
        text);
    data.set("part", part(number, true));
    out += event("response.content_part.done", data);
  }
  return out + event("response.output_item.done",
                     {{"output_index", index}, {"item", item(number, true)}});
}

std::string ResponsesWriter::write(const BlockChange& change) {
  if (change.what == What::begins) return write_begin(change.block);
  if (change.what == What::ends) return write_end(change.block);
  return write_text(change.block, change.text);
}

std::string ResponsesWriter::news(size_t /*choice*/, const AnswerNews& news) {
  const std::vector<BlockChange> changes = blocks_.add(news);
  if (news.finish)
    cut_off_ = news.finish->reason == engine::FinishReason::length ||
               news.finish->reason == engine::FinishReason::context;
  std::string out;
  if (options_.stream)
    for (const BlockChange& change : changes) out += write(change);
  return out;
}

std::string ResponsesWriter::end(const Usage& usage) {
  usage_ = usage_object(usage);
  const char* status = cut_off_ ? "incomplete" : "completed";
  const json::Object whole = response(status);
  if (options_.store)
    options_.store->add("resp_" + options_.id, json::write(whole), json::write(options_.input),
                        options_.previous);
  if (!options_.stream) return json::write(whole);
  return event(fmt::format("response.{}", status), {{"response", whole}});
}

std::string ResponsesWriter::fail(const ApiError& error, bool streamed) {
  if (!streamed) return ResponseWriter::fail(error, false);
  error_ = json::Object{{"code", "server_error"}, {"message", error.what()}};
  return event("response.failed", {{"response", response("failed")}});
}

}  // namespace qnext::server
