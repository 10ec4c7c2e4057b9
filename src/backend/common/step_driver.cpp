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
                    s.step->state_out, s.step->answer});
  }
  passes_.run_model(tokens, rows);
  for (const Progress& s : sequences)
    if (s.step->hidden) passes_.copy_hidden(s.first_row, s.rows, s.step->hidden);
}

// --- draws -----------------------------------------------------------------------------------

bool StepDriver::wants_logits(const Progress& s) const {
  return observer_ || s.step->logits;
}

// Penalties need counts, which change from row to row as drafts are accepted: the host's affair.
bool StepDriver::draws_on_device(const Progress& s) const {
  return s.step->draw && !wants_logits(s) && passes_.can_draw(*s.step->sampling);
}

// Rows whose logits the host looks at.
std::vector<int64_t> StepDriver::rows_with_logits(std::span<const Progress> sequences) const {
  std::vector<int64_t> rows;
  for (const Progress& s : sequences) {
    const bool all = wants_logits(s);
    if (!all && (!s.step->draw || draws_on_device(s))) continue;
    for (int64_t row = all ? s.first_row : s.first_drawing_row(); row < s.first_row + s.rows; ++row)
      rows.push_back(row);
  }
  return rows;
}

void StepDriver::draw(std::span<Progress> sequences) {
  draw_on_device(sequences);
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

void StepDriver::draw_on_device(std::span<Progress> sequences) {
  std::vector<RowDraw> draws;
  for (const Progress& s : sequences) {
    if (!draws_on_device(s)) continue;
    for (int64_t row = s.first_drawing_row(); row < s.first_row + s.rows; ++row)
      draws.push_back({row, s.step->sampling, s.step->first_position + row - s.first_row + 1,
                       allowed(s, row - s.first_row)});
  }
  if (draws.empty()) return;
  std::vector<int32_t> tokens(draws.size());
  passes_.draw(draws, tokens);
  size_t next = 0;
  for (Progress& s : sequences) {
    if (!draws_on_device(s)) continue;
    for (int64_t row = s.first_drawing_row(); row < s.first_row + s.rows; ++row) {
      const int32_t token = tokens[next++];
      if (!s.drawing) continue;
      // The host finds the same fault, and its words.
      if (token < 0)
        draw_token(s, row - s.first_row, passes_.lm_head(Hidden::model, std::span(&row, 1)));
      else
        take(s, row - s.first_row, {token, 0, {}});
    }
  }
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
    if (s.drawing && rows[i] >= s.first_drawing_row()) draw_token(s, local, logits);
  }
}

const uint32_t* StepDriver::allowed(const Progress& s, int64_t row) {
  const std::span<const uint32_t* const> masks = s.step->allowed;
  if (masks.empty()) return nullptr;
  return masks[static_cast<size_t>(row - (s.rows - 1 - s.step->drafts))];
}

void StepDriver::draw_token(Progress& s, int64_t row, const float* logits) const {
  const SequenceStep& step = *s.step;
  try {
    if (take(s, row,
             ops::sample(logits, config_.vocabulary_size, *step.sampling,
                         s.counts ? *s.counts : *step.counts, step.first_position + row + 1,
                         allowed(s, row)))) {
      if (!s.counts) s.counts = *step.counts;
      s.counts->add(s.result->tokens.back().token, true);
    }
  } catch (const std::exception& error) {
    s.result->tokens.clear();
    s.result->error = error.what();
    s.drawing = false;
  }
}

// Adds a drawn token to the answer; whether it accepts the draft behind it, so that drawing goes
// on.
bool StepDriver::take(Progress& s, int64_t row, ops::SampledToken token) const {
  const SequenceStep& step = *s.step;
  const int64_t draft = row - (s.rows - 1 - step.drafts);  // the one that this token judges
  s.drawing = false;
  if (draft < step.drafts) {
    const int32_t proposed = step.tokens[static_cast<size_t>(row + 1)];
    s.drawing = step.force_accepted >= 0 ? draft < step.force_accepted : proposed == token.token;
    if (s.drawing) token.token = proposed;
  }
  s.result->tokens.push_back(std::move(token));
  return s.drawing;
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
                    {},
                    s.step->answer});
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
  const auto proposes = [](const Progress& s) { return !s.result->error && s.step->propose > 0; };
  if (!observer_ && std::ranges::none_of(sequences, proposes)) {
    passes_.fill_mtp_cache(next_tokens, hidden, rows);
    return;
  }
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

void StepDriver::propose(std::span<Progress> all, std::span<const int64_t> last_rows) {
  std::vector<Progress*> sequences;
  std::vector<int64_t> rows;
  for (size_t i = 0; i < all.size(); ++i) {
    if (last_rows[i] < 0 || all[i].step->propose == 0) continue;
    sequences.push_back(&all[i]);
    rows.push_back(last_rows[i]);
  }
  if (passes_.can_draw({}))
    propose_on_device(sequences, rows);
  else
    propose_by_rounds(std::move(sequences), std::move(rows));
}

void StepDriver::propose_on_device(std::span<Progress* const> sequences,
                                   std::span<const int64_t> rows) {
  std::vector<DraftChain> chains;
  size_t count = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Progress& s = *sequences[i];
    chains.push_back({rows[i], s.drafting_position(), s.step->pages, s.step->propose});
    count += static_cast<size_t>(s.step->propose);
  }
  if (chains.empty()) return;
  std::vector<int32_t> tokens(count);
  passes_.draft(chains, tokens);
  auto next = tokens.begin();
  for (Progress* const s : sequences) {
    const auto end = next + s->step->propose;
    s->result->proposed.assign(next, std::find_if(next, end, [](int32_t t) { return t < 0; }));
    next = end;
  }
}

// Round j proposes token j + 1 of every sequence that wants so many, then feeds it back with the
// head's own output as hidden state.
void StepDriver::propose_by_rounds(std::vector<Progress*> sequences, std::vector<int64_t> rows) {
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
      next.push_back({static_cast<int64_t>(tokens.size()),
                      1,
                      s.drafting_position() + round,
                      s.step->pages,
                      no_slot,
                      {},
                      true});
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
