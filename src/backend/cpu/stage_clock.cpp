#include "backend/cpu/stage_clock.h"

#include <algorithm>
#include <utility>

namespace qnext::backend::cpu {

void StageClock::start() {
  on_ = true;
  stages_.clear();
  current_ = 0;
}

std::vector<StageTime> StageClock::take() {
  stage({});
  on_ = false;
  return std::exchange(stages_, {});
}

void StageClock::mark(std::string_view name) {
  const Clock::time_point now = Clock::now();
  if (current_ < stages_.size()) {
    stages_[current_].seconds += std::chrono::duration<double>(now - since_).count();
    ++stages_[current_].count;
  }
  since_ = now;
  const auto found = std::ranges::find(stages_, name, &StageTime::name);
  current_ = static_cast<size_t>(found - stages_.begin());
  if (found == stages_.end() && !name.empty()) stages_.push_back({std::string(name), 0, 0});
}

}  // namespace qnext::backend::cpu
