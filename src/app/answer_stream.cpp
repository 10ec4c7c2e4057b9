#include "app/answer_stream.h"

#include <utility>

#include "app/interrupt.h"
#include "app/units.h"
#include "base/error.h"

namespace qnext::app {

AnswerStream::AnswerStream(std::function<void(std::string_view)> on_piece)
    : on_piece_(std::move(on_piece)) {}

void AnswerStream::on_token(engine::RequestId, const ops::SampledToken& token) {
  last_ = Clock::now();
  if (tokens.empty()) first_ = last_;
  tokens.push_back(token);
}

void AnswerStream::on_text(engine::RequestId, std::string_view piece) {
  text += piece;
  if (on_piece_) on_piece_(piece);
}

void AnswerStream::on_finish(engine::RequestId, const engine::Finish& end) {
  finish = end;
}

void AnswerStream::run(engine::Engine& engine, engine::GenerationRequest request) {
  InterruptScope interrupt;
  start_ = first_ = last_ = Clock::now();
  const engine::RequestId id = engine.submit(std::move(request), *this);
  while (engine.step()) {
    if (interrupt.interrupted()) engine.cancel(id);
  }
  if (finish.reason == engine::FinishReason::error) fail("{}", finish.error);
}

AnswerTiming AnswerStream::timing() const {
  return {.prefill = std::chrono::duration<double>(first_ - start_).count(),
          .decode = std::chrono::duration<double>(last_ - first_).count()};
}

std::string statistics_line(const engine::GenerationCounts& counts, const AnswerTiming& timing) {
  const auto rate = [](int64_t tokens, double seconds) {
    return seconds > 0 ? rate_text(static_cast<double>(tokens) / seconds) : "-";
  };
  const std::string cached =
      counts.cached_tokens > 0 ? fmt::format(" ({} cached)", counts.cached_tokens) : "";
  std::string line = fmt::format(
      "prompt {} tokens{}, {} tokens/s; answer {} tokens, {} tokens/s", counts.prompt_tokens,
      cached, rate(counts.prompt_tokens - counts.cached_tokens, timing.prefill),
      counts.generated_tokens, rate(counts.generated_tokens - 1, timing.decode));
  if (counts.drafted_tokens > 0) {
    line += fmt::format("; {:.2f} tokens/step, {} of {} drafts accepted", counts.tokens_per_step(),
                        counts.accepted_tokens, counts.drafted_tokens);
  }
  return line;
}

}  // namespace qnext::app
