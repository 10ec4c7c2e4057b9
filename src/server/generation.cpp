#include "server/generation.h"

#include <algorithm>
#include <utility>

namespace qnext::server {
namespace {

// Why an answer that ended so is no answer; nothing if it is one.
std::optional<ApiError> failure_of(const engine::Finish& finish) {
  if (finish.reason == engine::FinishReason::error)
    return ApiError(500, "the answer failed: " + finish.error, "generation_failed");
  if (finish.reason == engine::FinishReason::cancelled)
    return ApiError(503, "the server is stopping", "server_stopping");
  return std::nullopt;
}

}  // namespace

json::Object Usage::object() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens},
          {"prompt_tokens_details", json::Object{{"cached_tokens", cached_tokens}}},
          {"completion_tokens_details",
           json::Object{{"accepted_prediction_tokens", accepted_tokens},
                        {"rejected_prediction_tokens", drafted_tokens - accepted_tokens}}}};
}

std::string event(const json::Value& data) {
  return "data: " + json::write(data) + "\n\n";
}

std::string named_event(std::string_view name, const json::Value& data) {
  return fmt::format("event: {}\n{}", name, event(data));
}

std::string ResponseWriter::fail(const ApiError& error, bool streamed) {
  if (!streamed) return json::write(error.body());
  return event(error.body()).append(done_event);
}

Generation::Generation(std::vector<AnswerHandle> answers, std::unique_ptr<ResponseWriter> writer,
                       bool streamed, int32_t choices)
    : answers_(std::move(answers)),
      ended_(answers_.size()),
      writer_(std::move(writer)),
      streamed_(streamed),
      choices_(static_cast<size_t>(choices)) {}

void Generation::set_wake(const std::function<void()>& wake) {
  for (AnswerHandle& answer : answers_) answer.set_wake(wake);
}

void Generation::fail(Output& output, const ApiError& error) {
  output.body += writer_->fail(error, streamed_);
  if (!streamed_) status_ = error.status();
  finish_reason_ = "error";
  output.done = done_ = true;
}

Generation::Output Generation::give_up(const ApiError& error) {
  Output output;
  fail(output, error);
  return output;
}

Generation::Output Generation::take() {
  Output output;
  if (done_) {
    output.done = true;
    return output;
  }
  if (!std::exchange(begun_, true)) output.body += writer_->begin();
  for (size_t i = 0; i < answers_.size(); ++i) {
    if (ended_[i]) continue;
    const AnswerNews news = answers_[i].take();
    if (news.finish) {
      if (const auto failure = failure_of(*news.finish)) {
        fail(output, *failure);
        return output;
      }
      ended_[i] = true;
      const engine::GenerationCounts& counts = news.finish->counts;
      usage_.completion_tokens += counts.generated_tokens;
      usage_.drafted_tokens += counts.drafted_tokens;
      usage_.accepted_tokens += counts.accepted_tokens;
      if (i % choices_ == 0) {
        usage_.prompt_tokens += counts.prompt_tokens;
        usage_.cached_tokens += counts.cached_tokens;
      }
      finish_reason_ = engine::finish_reason_name(news.finish->reason);
    }
    if (!news.text.empty() || !news.tokens.empty() || news.finish)
      output.body += writer_->news(i, news);
  }
  if (std::find(ended_.begin(), ended_.end(), false) == ended_.end()) {
    output.body += writer_->end(usage_);
    output.done = done_ = true;
  }
  return output;
}

}  // namespace qnext::server
