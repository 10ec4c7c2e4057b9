// One step of step.h on any device: all rows through the model, draws and draft acceptance, then
// the MTP head over the rows that stand, and its proposals.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "backend/common/passes.h"
#include "backend/step.h"
#include "base/thread_pool.h"
#include "model/config.h"

namespace qnext::backend {

class StepDriver {
 public:
  // Logits of several sequences are drawn from at once, on the threads of `pool`.
  StepDriver(const Config& config, Passes& passes, ThreadPool& pool);

  void observe(Observer* observer) { observer_ = observer; }

  // The batch obeys step.h.
  std::vector<SequenceResult> step(const Batch& batch);

 private:
  // Where one sequence stands within the step.
  struct Progress {
    const SequenceStep* step = nullptr;
    SequenceResult* result = nullptr;
    int64_t first_row = 0;  // in the batch
    int64_t rows = 0;
    bool drawing = false;  // the next token is still to be drawn
    // The step's counts and the drafts accepted so far; made where a penalty may need it.
    std::optional<ops::TokenCounts> counts;

    int64_t first_drawing_row() const { return first_row + rows - 1 - step->drafts; }
    // Rows that hold tokens of the sequence, now that drafts are judged.
    int64_t standing_rows() const {
      return step->draw ? rows - step->drafts + result->accepted_drafts() : rows;
    }
    // Of the head's row for the first token that it proposes.
    int64_t drafting_position() const { return step->first_position + standing_rows(); }
  };

  void run_model(std::span<Progress> sequences);
  bool wants_logits(const Progress& sequence) const;
  bool draws_on_device(const Progress& sequence) const;
  std::vector<int64_t> rows_with_logits(std::span<const Progress> sequences) const;
  void draw(std::span<Progress> sequences);
  void draw_on_device(std::span<Progress> sequences);
  bool take(Progress& sequence, int64_t row, ops::SampledToken token) const;
  void use_logits(Progress& sequence, std::span<const int64_t> rows, const float* logits) const;
  // The mask of a row of the sequence that draws, or null.
  static const uint32_t* allowed(const Progress& sequence, int64_t row);
  void draw_token(Progress& sequence, int64_t row, const float* logits) const;

  void run_mtp(std::span<Progress> sequences);
  void show_mtp(int64_t rows);
  void propose(std::span<Progress> sequences, std::span<const int64_t> last_rows);
  void propose_on_device(std::span<Progress* const> sequences, std::span<const int64_t> rows);
  void propose_by_rounds(std::vector<Progress*> sequences, std::vector<int64_t> rows);
  void propose_tokens(std::span<Progress* const> sequences, std::span<const int64_t> rows);

  const Config& config_;
  Passes& passes_;
  ThreadPool& pool_;
  Observer* observer_ = nullptr;
};

}  // namespace qnext::backend
