// How a text that is longer than a context is read: in windows that overlap, each from a fresh
// state, so that a token has the tokens before it in its window as context.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/step.h"

namespace qnext::engine {

// Tokens [first, end) of a text. A token is scored by what the tokens before it in the window
// predict; those of [first_scored, end) are.
struct TextWindow {
  int64_t first = 0;
  int64_t end = 0;
  int64_t first_scored = 0;  // > first
};

// Windows of at most `context` tokens, each beginning `stride` after the one before, the last where
// the text ends. Every token but the text's first is scored once, in the first window that can: so
// behind context - stride tokens or more, but for those of the first window.
// tokens >= 2, context >= 2, 1 <= stride < context.
std::vector<TextWindow> text_windows(int64_t tokens, int64_t context, int64_t stride);

// Rows [first, first + rows) of a window, read in one step. Row r predicts the token behind it;
// that of rows [first_scored, first + rows) is scored.
struct WindowStep {
  int64_t first = 0;
  int64_t rows = 0;
  int64_t first_scored = 0;

  bool scores() const { return first_scored < first + rows; }
};

// Most rows of one step: of those that only build up the state, and of those that give logits.
// Multiples of backend::prompt_cut keep a backend's promise of the same bits.
struct StepLimits {
  int64_t rows = 0;
  int64_t scored_rows = 0;  // at most `rows`
};

// All of a window but its last token, which predicts nothing that is asked for. Steps are cut at
// multiples of backend::prompt_cut where the limits are.
std::vector<WindowStep> window_steps(const TextWindow& window, const StepLimits& limits);

// One backend reading one window after another.
class WindowReader {
 public:
  // Reserves room for windows of `context` tokens and, with `logits`, a step's logits. The backend
  // must outlive this and be driven by nobody else meanwhile. Throws Error where memory lacks.
  WindowReader(backend::Backend& backend, int64_t context, const StepLimits& limits, bool logits);

  // The steps of a window in order. tokens: the window's. mtp: the MTP head reads along. Returns
  // the logits [rows, vocabulary], valid until the next step; null where the step scores nothing.
  // Throws Error where the backend fails.
  const float* read(std::span<const int32_t> tokens, const WindowStep& step, bool mtp = false);

 private:
  backend::Backend& backend_;
  std::vector<int32_t> pages_;
  std::vector<int32_t> state_out_;
  std::vector<float> logits_;
};

}  // namespace qnext::engine
