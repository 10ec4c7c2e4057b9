// One answer that goes on alone: its next step differs from this one by a token that the GPU has
// drawn itself, and by sums that it can do. So the next step is queued before the host knows that
// token, and runs while the host is still busy with it. If something else is asked for then, the
// step was for nothing: it has written what a step at its position writes anyway, and a state that
// lies in the spare place of StateSlots.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/expert_traffic.h"
#include "backend/cuda/pass_plan.h"
#include "ops/batch_cuda.h"
#include "ops/sampling/sample_cuda.h"

namespace qnext::backend::cuda {

// Whether the pass is one row of one answer, whose state goes back to its slot. Such a pass writes
// the state to the spare place, which then becomes the slot's.
bool is_lone_row(const PassPlan& plan);

// Of the arrays of such a pass, on the device, what its next step changes.
struct LoneRowArrays {
  ops::cuda::SequenceRows* sequence = nullptr;
  int32_t* state_out = nullptr;
  int32_t* token = nullptr;
};

// Makes them, and the sampler unless it is null, those of the step behind `drawn`: reads the state
// from where it was written and writes it to where it was read. Marks the end of this one in
// `counts`.
void advance_lone_row(const Stream& stream, const LoneRowArrays& arrays, const int32_t* drawn,
                      ops::cuda::RowSampling* sampler, ExpertTraffic::Counts* counts);

// Keeps account of lone rows and of the step that was queued behind the newest.
class LoneRows {
 public:
  // The plan of a model pass that was just queued as every other is.
  void ran(const PassPlan& plan);
  // Something came between two steps, and the like of it may come again.
  void interrupted() {
    successive_ = 0;
    taken_ = false;
  }
  // The step that was queued, if one was, is not wanted any more.
  bool forget() { return std::exchange(queued_, false); }

  // Whether the step behind it is likely to be one like it and finds its pages; `positions`: those
  // that the kernels are prepared for.
  bool can_go_on(int64_t positions) const;
  void queued(const ops::cuda::RowSampling& next) { queued_ = true, sampling_ = next; }
  // The newest row's token.
  void drew(int32_t token) { token_ = token; }

  // Whether the queued step is this one.
  bool is_next(const PassPlan& plan, int32_t token) const;
  void take();
  // The row that takes the place of a queued step, and was drawn from there with `sampling`.
  bool was_taken() const { return taken_; }
  bool was_drawn_with(const ops::cuda::RowSampling& sampling) const {
    return taken_ && sampling == sampling_;
  }

 private:
  struct Row {
    int64_t position = 0;
    int32_t slot = no_slot;
    std::vector<int32_t> pages;
  };

  Row row_;             // the newest
  int successive_ = 0;  // rows that followed each other; 0: the newest pass was something else
  bool taken_ = false;
  bool queued_ = false;
  int32_t token_ = -1;
  ops::cuda::RowSampling sampling_;  // of the step that is queued, or was taken
};

}  // namespace qnext::backend::cuda
