#include "app/units.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <string_view>

namespace qnext::app {
namespace {

// Three significant digits without an exponent.
std::string three_digits(double value) {
  const double magnitude = std::abs(value);
  if (magnitude >= 99.95) return fmt::format("{:.0f}", value);
  if (magnitude >= 9.995) return fmt::format("{:.1f}", value);
  return fmt::format("{:.2f}", value);
}

template <size_t count>
std::string scaled(double value, double step, const std::array<std::string_view, count>& units) {
  size_t unit = 0;
  // 999.5 and more would print as 1000: take the next unit.
  while (unit + 1 < count && std::abs(value) >= (unit == 0 ? step : 999.5)) {
    value /= step;
    ++unit;
  }
  const std::string number = unit == 0 ? fmt::format("{:.0f}", value) : three_digits(value);
  return units[unit].empty() ? number : fmt::format("{} {}", number, units[unit]);
}

}  // namespace

std::string bytes_text(double bytes) {
  constexpr std::array<std::string_view, 5> units = {"B", "KiB", "MiB", "GiB", "TiB"};
  return scaled(bytes, 1024, units);
}

std::string count_text(double count) {
  constexpr std::array<std::string_view, 5> units = {"", "k", "M", "G", "T"};
  return scaled(count, 1000, units);
}

std::string seconds_text(double seconds) {
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1e3);
  if (seconds < 119.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<long long>(std::llround(seconds));
  return fmt::format("{} min {:02} s", whole / 60, whole % 60);
}

std::string rate_text(double per_second) {
  return three_digits(per_second);
}

std::string grouped_text(long long value) {
  std::string text = fmt::format("{}", value);
  const size_t first = text[0] == '-' ? 1 : 0;
  for (size_t at = text.size(); at > first + 3;) {
    at -= 3;
    text.insert(at, 1, ',');
  }
  return text;
}

}  // namespace qnext::app
