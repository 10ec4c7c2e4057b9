// What the step driver asks of a backend: the layers over the rows of one batch. Where the rows
// lie is the backend's affair; the driver names them by number.
#pragma once

#include <cstdint>
#include <span>

#include "backend/step.h"

namespace qnext::backend {

// Rows of logits that are computed at a time; more would only cost memory, the lm_head is read
// once for each such group.
constexpr int64_t logits_rows = 32;

// Rows of several sequences, one after another, that pass through the layers together.
struct RowSequence {
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_position = 0;
  std::span<const int32_t> pages;
  int32_t state_in = no_slot;
  std::span<const int32_t> state_out;  // [rows]; empty in the MTP head, which has no such state
  bool answer = false;                 // as in SequenceStep
};

// The two kinds of hidden rows that outlive a pass: outputs of the model's final norm, and of the
// MTP head's.
enum class Hidden { model, mtp };

// A token to be drawn from the logits of a row Hidden::model.
struct RowDraw {
  int64_t row = 0;
  const ops::SamplingParameters* sampling = nullptr;
  int64_t position = 0;               // of the token
  const uint32_t* allowed = nullptr;  // as ops::sample's
};

// Greedy drafts of a sequence that follow each other: the first from the logits of a row of
// Hidden::mtp, every further one from the head's row for the one before it, whose hidden input is
// the head's own output.
struct DraftChain {
  int64_t row = 0;
  int64_t position = 0;  // of the head's row for the first draft
  std::span<const int32_t> pages;
  int32_t drafts = 0;  // at least 1
};

class Passes {
 public:
  virtual ~Passes() = default;

  // All layers and the final norm: tokens [rows] -> the rows Hidden::model. Advances KV and state.
  virtual void run_model(std::span<const int32_t> tokens,
                         std::span<const RowSequence> sequences) = 0;

  // The MTP head. Row r takes next_tokens[r], the token after its position, and row hidden_rows[r]
  // of `source` -> the rows Hidden::mtp, whose old ones end with the pass.
  virtual void run_mtp(std::span<const int32_t> next_tokens, Hidden source,
                       std::span<const int64_t> hidden_rows,
                       std::span<const RowSequence> sequences) = 0;
  // Only what run_mtp() leaves in the head's cache, from rows Hidden::model: for sequences that may
  // want drafts later. The rows Hidden::mtp end with it too.
  virtual void fill_mtp_cache(std::span<const int32_t> next_tokens,
                              std::span<const int64_t> hidden_rows,
                              std::span<const RowSequence> sequences) = 0;

  // `rows` rows Hidden::model, from `first` on in the driver's count, to `out` [rows, hidden_size].
  virtual void copy_hidden(int64_t first, int64_t rows, float* out) = 0;

  // Logits [rows, vocabulary] of at most logits_rows rows of `source`. They stay until the next
  // call.
  virtual const float* lm_head(Hidden source, std::span<const int64_t> rows) = 0;

  // Whether draw() takes such parameters and no logits need to come to the host.
  virtual bool can_draw(const ops::SamplingParameters& /*sampling*/) const { return false; }
  // tokens[i] for draws[i], from rows Hidden::model, as ops::sample() with no counts; -1 where the
  // logits are not numbers.
  virtual void draw(std::span<const RowDraw> /*draws*/, std::span<int32_t> /*tokens*/) {}

  // Where can_draw({}): tokens [chains][drafts of each], with no word from the host between them;
  // -1 where logits are not numbers, behind which the chain means nothing. Ends the rows
  // Hidden::mtp.
  virtual void draft(std::span<const DraftChain> /*chains*/, std::span<int32_t> /*tokens*/) {}

  // The first `rows` rows Hidden::mtp, for an observer.
  virtual const float* mtp_hidden(int64_t rows) = 0;
};

}  // namespace qnext::backend
