// Host memory for sequences that had to make way for older ones.
//
// Where pages run short the youngest sequence gives up its pages and slots. What they held is
// copied here, bit for bit, and back when there is room again: its answer goes on as if nothing had
// been. The recurrent state could not be had otherwise but by running all its tokens again.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/step.h"
#include "engine/sequence.h"

namespace qnext::engine {

class SwapSpace {
 public:
  // At most so many bytes. The backend must outlive it.
  SwapSpace(backend::Backend& backend, size_t bytes) : backend_(backend), limit_(bytes) {}

  // Copies the pages and the state of a sequence that has begun. False, and nothing is kept, where
  // they do not fit.
  bool save(Sequence& sequence);
  // Puts them into the pages and slots that the sequence holds now, and forgets them.
  void restore(Sequence& sequence);
  // Forgets what was saved of it, if anything was.
  void drop(Sequence& sequence);

  size_t bytes() const { return bytes_; }

 private:
  backend::Backend& backend_;
  size_t limit_;
  size_t bytes_ = 0;
};

}  // namespace qnext::engine
