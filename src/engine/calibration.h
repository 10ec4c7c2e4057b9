// What a calibration text says of the columns of a model's matrices.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "backend/step.h"
#include "model/importance.h"

namespace qnext::engine {

struct CalibrationOptions {
  int64_t context = 0;  // tokens of a window; each begins from a fresh state
  int32_t chunk = 0;    // rows of a step; 0: what suits the device
  // Called after each step with the tokens read so far and of how many.
  std::function<void(int64_t done, int64_t total)> progress = nullptr;
};

// Reads the text once, all but its last token, and takes the mean square of every input column of
// every matrix; the MTP head's too where the backend has loaded it. An expert counts only the
// tokens that were routed to it. tokens >= 2, context >= 2. Throws Error where the backend does not
// show its inputs, where memory lacks, and where activations are not numbers.
Importance collect_importance(backend::Backend& backend, std::span<const int32_t> tokens,
                              const CalibrationOptions& options);

}  // namespace qnext::engine
