// An answer on its way to standard output, and how long it took.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/request.h"

namespace qnext::app {

// Seconds of the two phases of one answer.
struct AnswerTiming {
  double prefill = 0;  // until the first token
  double decode = 0;   // from the first to the last
};

// Collects one answer, hands its text on as it comes, and ends it at Ctrl-C.
class AnswerStream : public engine::Listener {
 public:
  // `on_piece` may be empty.
  explicit AnswerStream(std::function<void(std::string_view)> on_piece);

  void on_token(engine::RequestId id, const ops::SampledToken& token) override;
  void on_text(engine::RequestId id, std::string_view piece) override;
  void on_finish(engine::RequestId id, const engine::Finish& finish) override;

  // Runs `request` on an idle engine until it ends. Throws Error where the request is refused or
  // fails.
  void run(engine::Engine& engine, engine::GenerationRequest request);

  std::string text;
  std::vector<ops::SampledToken> tokens;
  engine::Finish finish;
  AnswerTiming timing() const;

 private:
  using Clock = std::chrono::steady_clock;

  std::function<void(std::string_view)> on_piece_;
  Clock::time_point start_;
  Clock::time_point first_;
  Clock::time_point last_;
};

// "prompt 12 tokens, 150 tokens/s; ..." for people; one line.
std::string statistics_line(const engine::GenerationCounts& counts, const AnswerTiming& timing);

}  // namespace qnext::app
