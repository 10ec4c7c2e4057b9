// Time by stage of the steps, from the driving thread's clock between the operations. Off it costs
// a branch.
#pragma once

#include <chrono>
#include <string_view>
#include <vector>

#include "backend/step.h"

namespace qnext::backend::cpu {

class StageClock {
 public:
  void start();
  // All stages since start(), in the order in which they first came; ends the timing.
  std::vector<StageTime> take();

  // What is done from here to the next call belongs to `name`; empty: to none.
  void stage(std::string_view name) {
    if (on_) mark(name);
  }

 private:
  using Clock = std::chrono::steady_clock;
  void mark(std::string_view name);

  bool on_ = false;
  std::vector<StageTime> stages_;
  size_t current_ = 0;  // stages_.size(): none
  Clock::time_point since_;
};

}  // namespace qnext::backend::cpu
