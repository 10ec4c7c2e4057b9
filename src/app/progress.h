// A progress bar on standard error.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>

#include "app/units.h"

namespace qnext::app {

// How an amount of work is written: bytes_text() of app/units.h, count_text(), ...
using AmountText = std::string (*)(double amount);

// Shown only on a terminal, only once the work has taken half a second, and at most ten times a
// second; erased at the end. Progress is counted in bytes, unless `amount` writes something else.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label, AmountText amount = bytes_text);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(size_t done, size_t total);
  // Shown from the next update on.
  void set_label(std::string label) { label_ = std::move(label); }

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_;
  AmountText amount_;
  bool terminal_ = false;
  bool shown_ = false;
  Clock::time_point start_;
  Clock::time_point next_;
};

// The bar's line for a terminal `columns` wide; never longer than columns - 1.
std::string progress_line(const std::string& label, double done, double total, double seconds,
                          int columns, AmountText amount = bytes_text);

}  // namespace qnext::app
