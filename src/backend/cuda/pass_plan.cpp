#include "backend/cuda/pass_plan.h"

#include <algorithm>

#include "backend/cuda/packed_shapes.h"
#include "base/error.h"
#include "ops/attention/paged_attention_cuda.h"

namespace qnext::backend::cuda {

namespace {

// How many of the rows from `first` on fit one pass.
int64_t piece_rows(const RowSequence& s, int64_t first) {
  if (s.answer)
    return std::min({ops::cuda::most_answer_rows, s.rows - first,
                     ops::cuda::answer_rows_from(s.first_position + first)});
  int64_t end = first + 1;
  if (s.state_out.empty()) return s.rows - first;
  while (end < s.rows && s.state_out[static_cast<size_t>(end - 1)] == no_slot) ++end;
  return end - first;
}

void append(PassPlan& plan, const RowSequence& s, int64_t first, int64_t rows, int32_t state_in) {
  PassSequence piece;
  piece.driver_row = s.first_row + first;
  piece.rows = s;
  piece.rows.first_row = plan.rows;
  piece.rows.rows = rows;
  piece.rows.first_position = s.first_position + first;
  piece.rows.state_in = state_in;
  if (!s.state_out.empty())
    piece.rows.state_out =
        s.state_out.subspan(static_cast<size_t>(first), static_cast<size_t>(rows));
  plan.rows += rows;
  plan.longest = std::max(plan.longest, piece.rows.first_position + rows);
  plan.most_rows = std::max(plan.most_rows, rows);
  plan.sequences.push_back(piece);
}

// Where a sequence stands.
struct Remaining {
  const RowSequence* sequence = nullptr;
  int64_t first = 0;
  int32_t state = no_slot;
};

void plan_form(bool answer, std::vector<Remaining> remaining, std::vector<PassPlan>& plans) {
  while (!remaining.empty()) {
    PassPlan plan;
    plan.answer = answer;
    std::vector<Remaining> later;
    for (Remaining& r : remaining) {
      const int64_t rows = piece_rows(*r.sequence, r.first);
      if (answer && plan.rows + rows > most_answer_pass_rows) {
        later.push_back(r);
        continue;
      }
      append(plan, *r.sequence, r.first, rows, r.state);
      r.first += rows;
      if (!r.sequence->state_out.empty())
        r.state = r.sequence->state_out[static_cast<size_t>(r.first - 1)];
      if (r.first == r.sequence->rows) continue;
      QNEXT_CHECK(r.sequence->state_out.empty() || r.state != no_slot, "the state between passes");
      later.push_back(r);
    }
    plans.push_back(std::move(plan));
    remaining = std::move(later);
  }
}

}  // namespace

std::vector<PassPlan> plan_passes(std::span<const RowSequence> sequences) {
  std::vector<Remaining> answers, prompts;
  for (const RowSequence& s : sequences)
    (s.answer ? answers : prompts).push_back({&s, 0, s.state_in});
  std::vector<PassPlan> plans;
  plan_form(true, std::move(answers), plans);
  plan_form(false, std::move(prompts), plans);
  return plans;
}

}  // namespace qnext::backend::cuda
