// A progress bar on standard error.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace qnext::app {

// Shown only on a terminal, only once the work has taken half a second, and at most ten times a
// second; erased at the end. Progress is counted in bytes.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(size_t done, size_t total);

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_;
  bool terminal_ = false;
  bool shown_ = false;
  Clock::time_point start_;
  Clock::time_point next_;
};

// The bar's line for a terminal `columns` wide; never longer than columns - 1.
std::string progress_line(const std::string& label, double done, double total, double seconds,
                          int columns);

}  // namespace qnext::app
