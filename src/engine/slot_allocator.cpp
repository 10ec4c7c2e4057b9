#include "engine/slot_allocator.h"

#include <algorithm>

#include "backend/step.h"
#include "base/error.h"

namespace qnext::engine {

SlotAllocator::SlotAllocator(int32_t slots) : total_(slots), taken_(static_cast<size_t>(slots)) {
  free_.reserve(static_cast<size_t>(slots));
  for (int32_t slot = slots - 1; slot >= 0; --slot) free_.push_back(slot);
}

std::vector<int32_t> SlotAllocator::take(int32_t count) {
  QNEXT_CHECK(count >= 0 && count <= free(), "{} slots wanted, {} free", count, free());
  std::vector<int32_t> slots(free_.end() - count, free_.end());
  free_.resize(free_.size() - static_cast<size_t>(count));
  for (const int32_t slot : slots) taken_[static_cast<size_t>(slot)] = true;
  return slots;
}

void SlotAllocator::give_back(std::span<const int32_t> slots) {
  for (const int32_t slot : slots) {
    QNEXT_CHECK(slot >= 0 && slot < total_ && taken_[static_cast<size_t>(slot)],
                "slot {} is given back but was not taken", slot);
    taken_[static_cast<size_t>(slot)] = false;
    free_.push_back(slot);
  }
}

int32_t SequenceSlots::input() const {
  return started_ ? slots_.front() : backend::no_slot;
}

std::span<const int32_t> SequenceSlots::outputs(int32_t rows, int32_t drafts) {
  QNEXT_CHECK(drafts >= 0 && drafts < rows && static_cast<size_t>(drafts) < slots_.size());
  outputs_.assign(static_cast<size_t>(rows), backend::no_slot);
  // The row before draft i writes spare slot i; the last row writes over the input.
  std::copy_n(slots_.begin() + 1, drafts, outputs_.end() - drafts - 1);
  outputs_.back() = slots_.front();
  return outputs_;
}

void SequenceSlots::also_keep(int32_t row, int32_t slot) {
  int32_t& output = outputs_[static_cast<size_t>(row)];
  QNEXT_CHECK(output == backend::no_slot);
  output = slot;
}

int32_t SequenceSlots::restore() {
  QNEXT_CHECK(!started_);
  started_ = true;
  return slots_.front();
}

void SequenceSlots::advance(int32_t drafts, int32_t accepted) {
  QNEXT_CHECK(accepted >= 0 && accepted <= drafts);
  started_ = true;
  if (accepted < drafts) std::swap(slots_[0], slots_[static_cast<size_t>(accepted) + 1]);
}

}  // namespace qnext::engine
