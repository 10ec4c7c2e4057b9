// Numbers of state slots, and the slots of one sequence.
//
// The recurrent state cannot be rolled back, so a step that verifies drafts keeps the state after
// every row that may turn out to be the last good one. A step with d drafts needs d + 1 of them:
// d spare slots, and for its last row the very slot that it started from. A sequence that
// speculates N deep therefore holds N + 1 slots from its admission to its end.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace qnext::engine {

class SlotAllocator {
 public:
  explicit SlotAllocator(int32_t slots);

  int32_t total() const { return total_; }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }

  // `count` slots; count <= free().
  std::vector<int32_t> take(int32_t count);
  void give_back(std::span<const int32_t> slots);

 private:
  int32_t total_ = 0;
  std::vector<int32_t> free_;
  std::vector<bool> taken_;
};

// Which of a sequence's slots holds its state now. Owns the numbers no more than a span does: the
// scheduler gives them back.
class SequenceSlots {
 public:
  SequenceSlots() = default;
  explicit SequenceSlots(std::vector<int32_t> slots) : slots_(std::move(slots)) {}

  std::span<const int32_t> all() const { return slots_; }
  // Where a step reads: no_slot before the first step.
  int32_t input() const;
  // Where the rows of a step write: nothing before its last drafts + 1 rows. Valid until the next
  // call; drafts < all().size(), drafts < rows.
  std::span<const int32_t> outputs(int32_t rows, int32_t drafts);
  // Besides, the state after `row`, which writes nothing else, goes to `slot`.
  void also_keep(int32_t row, int32_t slot);
  // Where the step that was asked for last has written the state after `row`; no_slot: nowhere.
  int32_t written(int32_t row) const { return outputs_[static_cast<size_t>(row)]; }
  // Where a state is to be put for a sequence that does not begin at its start.
  int32_t restore();
  // After that step: `accepted` of its drafts were right, so the state after them is the state now.
  void advance(int32_t drafts, int32_t accepted);

 private:
  std::vector<int32_t> slots_;  // the current one first
  std::vector<int32_t> outputs_;
  bool started_ = false;
};

}  // namespace qnext::engine
