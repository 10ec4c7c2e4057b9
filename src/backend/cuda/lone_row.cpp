#include "backend/cuda/lone_row.h"

#include <algorithm>

#include "backend/cuda/caches.h"

namespace qnext::backend::cuda {

bool is_lone_row(const PassPlan& plan) {
  if (!plan.answer || plan.rows != 1) return false;
  const RowSequence& row = plan.sequences.front().rows;
  return row.state_in != no_slot && row.state_out.size() == 1 &&
         row.state_out.front() == row.state_in;
}

void LoneRows::ran(const PassPlan& plan) {
  const RowSequence& row = plan.sequences.front().rows;
  const bool follows =
      successive_ > 0 && row.first_position == row_.position + 1 && row.state_in == row_.slot;
  successive_ = follows ? successive_ + 1 : 1;
  row_ = {row.first_position, row.state_in, {row.pages.begin(), row.pages.end()}};
  taken_ = false;
}

// The first of them may be one of many that each have something behind them.
bool LoneRows::can_go_on(int64_t positions) const {
  const int64_t needed = row_.position + 2;
  return successive_ > 1 && needed <= positions && needed <= std::ssize(row_.pages) * page_tokens;
}

bool LoneRows::is_next(const PassPlan& plan, int32_t token) const {
  if (!queued_ || token != token_) return false;
  const RowSequence& row = plan.sequences.front().rows;
  return row.first_position == row_.position + 1 && row.state_in == row_.slot &&
         std::ranges::equal(row.pages, row_.pages);
}

void LoneRows::take() {
  ++row_.position;
  ++successive_;
  queued_ = false;
  taken_ = true;
}

}  // namespace qnext::backend::cuda
