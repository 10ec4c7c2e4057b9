#include "backend/common/step_driver.h"

#include <algorithm>
#include <exception>
#include <numeric>

#include "base/error.h"

namespace qnext::backend {

StepDriver::StepDriver(const Config& config, Passes& passes, ThreadPool& pool)
    : config_(config), passes_(passes), pool_(pool) {}

std::vector<SequenceResult> StepDriver::step(const Batch& batch) {
  std::vector<SequenceResult> results(batch.sequences.size());
  std::vector<Progress> sequences;
  int64_t row = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    const SequenceStep& s = batch.sequences[i];
    Progress progress;
    progress.step = &s;
    progress.result = &results[i];
    progress.first_row = row;
    progress.rows = static_cast<int64_t>(s.tokens.size());
    progress.drawing = s.draw;
    row += progress.rows;
    sequences.push_back(std::move(progress));
  }
  run_model(sequences);
  draw(sequences);
  run_mtp(sequences);
  return results;
}

void StepDriver::run_model(std::span<Progress> sequences) {
  std::vector<int32_t> tokens;
  std::vector<RowSequence> rows;
  for (const Progress& s : sequences) {
    tokens.insert(tokens.end(), s.step->tokens.begin(), s.step->tokens.end());
    rows.push_back({s.first_row, s.rows, s.step->first_position, s.step->pages, s.step->state_in,
                    s.step->state_out});
  }
  passes_.run_model(tokens, rows);
}

// --- draws -----------------------------------------------------------------------------------

std::vector<int64_t> StepDriver::rows_with_logits(std::span<const Progress> sequences) const {
  std::vector<int64_t> rows;
  for (const Progress& s : sequences) {
    const bool all = observer_ || s.step->logits;
    if (!all && !s.step->draw) continue;
    for (int64_t row = all ? s.first_row : s.first_drawing_row(); row < s.first_row + s.rows; ++row)
      rows.push_back(row);
  }
  return rows;
}

void StepDriver::draw(std::span<Progress> sequences) {
  const std::vector<int64_t> all_rows = rows_with_logits(sequences);
  std::vector<float> shown;
  for (size_t begin = 0; begin < all_rows.size(); begin += logits_rows) {
    const auto rows =
        std::span(all_rows).subspan(begin, std::min<size_t>(logits_rows, all_rows.size() - begin));
    const float* logits = passes_.lm_head(Hidden::model, rows);
    if (observer_)
      shown.insert(shown.end(), logits,
                   logits + static_cast<int64_t>(rows.size()) * config_.vocabulary_size);
    pool_.parallel_for(static_cast<int64_t>(sequences.size()), 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        use_logits(sequences[static_cast<size_t>(i)], rows, logits);
    });
  }
  if (observer_)
    observer_->observe(Observed::logits, 0, static_cast<int64_t>(all_rows.size()),
                       config_.vocabulary_size, shown.data());
}

// `all_logits` are those of `rows` of the batch; some may be this sequence's.
void StepDriver::use_logits(Progress& s, std::span<const int64_t> rows,
                            const float* all_logits) const {
  const int64_t vocabulary = config_.vocabulary_size;
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t local = rows[i] - s.first_row;
    if (local < 0 || local >= s.rows) continue;
    const float* logits = all_logits + static_cast<int64_t>(i) * vocabulary;
    if (s.step->logits) std::copy_n(logits, vocabulary, s.step->logits + local * vocabulary);
    if (s.drawing && rows[i] >= s.first_drawing_row()) draw_token(s, local, logits, vocabulary);
  }
}

void StepDriver::draw_token(Progress& s, int64_t row, const float* logits, int64_t vocabulary) {
  const SequenceStep& step = *s.step;
  try {
    s.result->tokens.push_back(ops::sample(logits, vocabulary, *step.sampling,
                                           s.counts ? *s.counts : *step.counts,
                                           step.first_position + row + 1));
  } catch (const std::exception& error) {
    s.result->tokens.clear();
    s.result->error = error.what();
    s.drawing = false;
    return;
  }
  const int32_t token = s.result->tokens.back().token;
  s.drawing = row + 1 < s.rows && step.tokens[static_cast<size_t>(row + 1)] == token;
  if (!s.drawing) return;
  if (!s.counts) s.counts = *step.counts;
  s.counts->add(token, true);
}

// --- the MTP head ----------------------------------------------------------------------------

// Row t of the head takes the final hidden state of t and the token at t + 1, which is known by
// now for every row that stands.
void StepDriver::run_mtp(std::span<Progress> sequences) {
  std::vector<int32_t> next_tokens;
  std::vector<int64_t> hidden;  // rows of the model
  std::vector<RowSequence> rows;
  std::vector<int64_t> last_rows(sequences.size(), -1);  // in the head's batch
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Progress& s = sequences[i];
    if (!s.step->mtp || s.result->error) continue;
    const int64_t count = s.standing_rows();
    rows.push_back({static_cast<int64_t>(next_tokens.size()),
                    count,
                    s.step->first_position,
                    s.step->pages,
                    no_slot,
                    {}});
    for (int64_t row = 0; row < count; ++row) {
      const bool last = row + 1 == count;
      next_tokens.push_back(!last          ? s.step->tokens[static_cast<size_t>(row + 1)]
                            : s.step->draw ? s.result->tokens.back().token
                                           : s.step->next_token);
      hidden.push_back(s.first_row + row);
    }
    last_rows[i] = static_cast<int64_t>(next_tokens.size()) - 1;
  }
  if (rows.empty()) return;
  passes_.run_mtp(next_tokens, Hidden::model, hidden, rows);
  if (observer_) show_mtp(static_cast<int64_t>(next_tokens.size()));
  propose(sequences, last_rows);
}

void StepDriver::show_mtp(int64_t rows) {
  observer_->observe(Observed::mtp_hidden, 0, rows, config_.hidden_size, passes_.mtp_hidden(rows));
  std::vector<float> shown;
  for (int64_t begin = 0; begin < rows; begin += logits_rows) {
    std::vector<int64_t> group(static_cast<size_t>(std::min(logits_rows, rows - begin)));
    std::iota(group.begin(), group.end(), begin);
    const float* logits = passes_.lm_head(Hidden::mtp, group);
    shown.insert(shown.end(), logits,
                 logits + static_cast<int64_t>(group.size()) * config_.vocabulary_size);
  }
  observer_->observe(Observed::mtp_logits, 0, rows, config_.vocabulary_size, shown.data());
}

// Round j proposes token j + 1 of every sequence that wants so many, then feeds it back with the
// head's own output as hidden state.
void StepDriver::propose(std::span<Progress> all, std::span<const int64_t> last_rows) {
  std::vector<Progress*> sequences;
  std::vector<int64_t> rows;
  for (size_t i = 0; i < all.size(); ++i) {
    if (last_rows[i] < 0 || all[i].step->propose == 0) continue;
    sequences.push_back(&all[i]);
    rows.push_back(last_rows[i]);
  }
  for (int32_t round = 0; !sequences.empty(); ++round) {
    propose_tokens(sequences, rows);
    std::vector<Progress*> remaining;
    std::vector<int32_t> tokens;
    std::vector<int64_t> hidden;  // rows of the head
    std::vector<RowSequence> next;
    for (size_t i = 0; i < sequences.size(); ++i) {
      Progress& s = *sequences[i];
      const std::vector<int32_t>& proposed = s.result->proposed;
      // Fewer proposals than rounds: the head's logits were not numbers.
      if (static_cast<int32_t>(proposed.size()) <= round || round + 1 >= s.step->propose) continue;
      const int64_t position = s.step->first_position + s.standing_rows() + round;
      next.push_back(
          {static_cast<int64_t>(tokens.size()), 1, position, s.step->pages, no_slot, {}});
      remaining.push_back(&s);
      tokens.push_back(proposed.back());
      hidden.push_back(rows[i]);
    }
    sequences = std::move(remaining);
    rows.resize(sequences.size());
    std::iota(rows.begin(), rows.end(), 0);
    if (!sequences.empty()) passes_.run_mtp(tokens, Hidden::mtp, hidden, next);
  }
}

void StepDriver::propose_tokens(std::span<Progress* const> sequences,
                                std::span<const int64_t> rows) {
  for (size_t begin = 0; begin < rows.size(); begin += logits_rows) {
    const auto group = rows.subspan(begin, std::min<size_t>(logits_rows, rows.size() - begin));
    const float* all_logits = passes_.lm_head(Hidden::mtp, group);
    for (size_t i = 0; i < group.size(); ++i) {
      const float* logits = all_logits + static_cast<int64_t>(i) * config_.vocabulary_size;
      try {
        sequences[begin + i]->result->proposed.push_back(
            ops::argmax(logits, config_.vocabulary_size));
      } catch (const Error&) {
        // A head that is not a number proposes nothing; the model's own answer stands.
      }
    }
  }
}

}  // namespace qnext::backend
