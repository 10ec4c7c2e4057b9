#include "app/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "app/terminal.h"

namespace qnext::app {
namespace {

constexpr auto delay = std::chrono::milliseconds(500);
constexpr auto interval = std::chrono::milliseconds(100);

}  // namespace

std::string progress_line(const std::string& label, double done, double total, double seconds,
                          int columns, AmountText amount) {
  const double share = total > 0 ? std::clamp(done / total, 0.0, 1.0) : 0;
  std::string numbers =
      fmt::format(" {:3.0f} %  {} of {}", share * 100, amount(done), amount(total));
  // An estimate from the first percent would jump about.
  if (share > 0.01) {
    numbers += fmt::format(", {} left", seconds_text(seconds * (1 - share) / share));
  }
  const auto taken = static_cast<int>(label.size() + numbers.size()) + 4;  // space, brackets, end
  std::string line = label;
  if (const int width = std::min(40, columns - taken); width >= 5) {
    const auto filled = static_cast<size_t>(share * width);
    line += " [" + std::string(filled, '#') +
            std::string(static_cast<size_t>(width) - filled, '.') + "]";
  }
  line += numbers;
  return line.substr(0, static_cast<size_t>(std::max(columns - 1, 0)));
}

ProgressBar::ProgressBar(std::string label, AmountText amount)
    : label_(std::move(label)),
      amount_(amount),
      terminal_(is_terminal(STDERR_FILENO)),
      start_(Clock::now()),
      next_(start_ + delay) {}

ProgressBar::~ProgressBar() {
  if (shown_) fmt::print(stderr, "\r\x1b[K");
}

void ProgressBar::update(size_t done, size_t total) {
  if (!terminal_) return;
  const auto now = Clock::now();
  if (now < next_) return;
  next_ = now + interval;
  shown_ = true;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  fmt::print(stderr, "\r{}\x1b[K",
             progress_line(label_, static_cast<double>(done), static_cast<double>(total), seconds,
                           terminal_columns(STDERR_FILENO), amount_));
}

}  // namespace qnext::app
