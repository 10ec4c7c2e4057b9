#include "engine/text_windows.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace qnext::engine {

std::vector<TextWindow> text_windows(int64_t tokens, int64_t context, int64_t stride) {
  QNEXT_CHECK(tokens >= 2 && context >= 2 && stride >= 1 && stride < context,
              "{} tokens in windows of {} every {}", tokens, context, stride);
  std::vector<TextWindow> windows;
  int64_t scored = 1;  // tokens before this one are done
  for (int64_t first = 0; scored < tokens; first += stride) {
    const int64_t end = std::min(first + context, tokens);
    windows.push_back({first, end, scored});
    scored = end;
  }
  return windows;
}

std::vector<WindowStep> window_steps(const TextWindow& window, const StepLimits& limits) {
  QNEXT_CHECK(limits.scored_rows >= 1 && limits.scored_rows <= limits.rows);
  const int64_t rows = window.end - window.first - 1;
  const int64_t first_scored = window.first_scored - window.first - 1;
  // Rows from here on come with logits: a few of them too many, but cut where prompts may be cut.
  const int64_t cut = std::gcd(limits.scored_rows, backend::prompt_cut);
  const int64_t with_logits = first_scored / cut * cut;
  std::vector<WindowStep> steps;
  for (int64_t first = 0; first < rows;) {
    const int64_t end = first < with_logits ? std::min(first + limits.rows, with_logits)
                                            : std::min(first + limits.scored_rows, rows);
    steps.push_back({first, end - first, std::clamp(first_scored, first, end)});
    first = end;
  }
  return steps;
}

WindowReader::WindowReader(backend::Backend& backend, int64_t context, const StepLimits& limits,
                           bool logits)
    : backend_(backend) {
  const int64_t page_tokens = backend.capabilities().page_tokens;
  pages_.resize(static_cast<size_t>((context + page_tokens - 1) / page_tokens));
  std::iota(pages_.begin(), pages_.end(), 0);
  backend.reserve({static_cast<int32_t>(pages_.size()), 1, static_cast<int32_t>(limits.rows)});
  if (logits)
    logits_.resize(static_cast<size_t>(limits.scored_rows * backend.config().vocabulary_size));
}

const float* WindowReader::read(std::span<const int32_t> tokens, const WindowStep& step, bool mtp) {
  constexpr int32_t slot = 0;
  state_out_.assign(static_cast<size_t>(step.rows), backend::no_slot);
  state_out_.back() = slot;
  backend::SequenceStep sequence;
  sequence.tokens = tokens.subspan(static_cast<size_t>(step.first), static_cast<size_t>(step.rows));
  sequence.first_position = step.first;
  sequence.pages = pages_;
  sequence.state_in = step.first == 0 ? backend::no_slot : slot;
  sequence.state_out = state_out_;
  sequence.mtp = mtp;
  if (mtp) sequence.next_token = tokens[static_cast<size_t>(step.first + step.rows)];
  sequence.logits = step.scores() ? logits_.data() : nullptr;
  backend::Batch batch;
  batch.sequences.push_back(sequence);
  const std::vector<backend::SequenceResult> results = backend_.step(batch);
  if (results.at(0).error) fail("{}", *results[0].error);
  return sequence.logits;
}

}  // namespace qnext::engine
