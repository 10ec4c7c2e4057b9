#include "backend/cuda/stage_timer.h"

#include <algorithm>

#include "base/cuda_error.h"

namespace qnext::backend::cuda {

StageTimer::~StageTimer() {
  for (const Mark& mark : marks_) cudaEventDestroy(mark.event);
}

void StageTimer::mark(const Stream& stream, const char* name) {
  Mark& mark = marks_.emplace_back();
  mark.name = name;
  check_cuda(cudaEventCreate(&mark.event), "cudaEventCreate");
  check_cuda(cudaEventRecord(mark.event, stream.get()), "cudaEventRecord");
}

std::vector<StageTime> StageTimer::take(const Stream& stream) {
  on_ = false;
  stream.wait();
  std::vector<StageTime> out;
  for (size_t i = 0; i + 1 < marks_.size(); ++i) {
    if (!marks_[i].name) continue;
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, marks_[i].event, marks_[i + 1].event),
               "cudaEventElapsedTime");
    auto found = std::ranges::find(out, marks_[i].name, &StageTime::name);
    if (found == out.end()) found = out.insert(out.end(), StageTime{marks_[i].name, 0, 0});
    found->seconds += static_cast<double>(milliseconds) * 1e-3;
    ++found->count;
  }
  for (const Mark& mark : marks_) cudaEventDestroy(mark.event);
  marks_.clear();
  return out;
}

}  // namespace qnext::backend::cuda
