// Time by stage of a pass, from events between the kernels. Off it costs nothing; on, passes run
// kernel by kernel rather than as graphs, so that the stages do not overlap: their sum is above the
// time of an undisturbed pass.
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <string>
#include <vector>

#include "backend/cuda/device_memory.h"
#include "backend/step.h"

namespace qnext::backend::cuda {

class StageTimer {
 public:
  StageTimer() = default;
  ~StageTimer();
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

  bool on() const { return on_; }
  void start() { on_ = true; }
  // All stages since start(), in the order in which they first came; ends the timing.
  std::vector<StageTime> take(const Stream& stream);

  // Everything queued from here to the next call belongs to `name`, a string literal; null: to
  // none.
  void stage(const Stream& stream, const char* name) {
    if (on_) mark(stream, name);
  }

 private:
  struct Mark {
    cudaEvent_t event = nullptr;
    const char* name = nullptr;
  };
  void mark(const Stream& stream, const char* name);

  bool on_ = false;
  std::vector<Mark> marks_;
};

}  // namespace qnext::backend::cuda
