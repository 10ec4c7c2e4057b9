// Finds filters by name, and the filters on numbers and defaults.
#include "text/template_filters.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "text/template_arguments.h"
#include "text/template_arithmetic.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

Value filter_abs(Runtime&, const Value& input, const Arguments& arguments) {
  const Bound bound("abs", arguments, {});
  if (input.is_undefined()) fail_undefined(input);
  if (input.is_float()) return std::abs(input.floating());
  const auto integer = input.integer();
  if (!integer) fail("abs needs a number, not '{}'", input.type_name());
  return *integer < 0 ? negate(*integer) : Value(*integer);
}

Value filter_default(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  const bool absent =
      input.is_undefined() || (bound.flag(runtime, 1, false) && !truth(runtime, input));
  return absent ? bound.value_or(0, Value("")) : input;
}

std::string number_text(const Value& value) {
  const std::string_view trimmed = strip(value.text(), Side::both, nullptr);
  std::string out;
  for (size_t i = 0; i < trimmed.size(); ++i) {
    // Python takes single underscores between digits.
    const bool between = i > 0 && i + 1 < trimmed.size() && std::isalnum(trimmed[i - 1]) &&
                         std::isalnum(trimmed[i + 1]);
    if (trimmed[i] != '_' || !between) out += trimmed[i];
  }
  return out;
}

std::optional<double> parse_double(const Value& value) {
  const std::string text = number_text(value);
  std::string_view digits = text;
  if (!digits.empty() && (digits[0] == '+' || digits[0] == '-')) digits.remove_prefix(1);
  std::string lower = to_lower(digits);
  const bool named = lower == "inf" || lower == "infinity" || lower == "nan";
  if (!named && (digits.empty() || (digits[0] != '.' && (digits[0] < '0' || digits[0] > '9')) ||
                 digits.find_first_of("xXpPnN") != std::string_view::npos))
    return std::nullopt;
  char* end = nullptr;
  const double result = std::strtod(text.c_str(), &end);
  if (end != text.c_str() + text.size()) return std::nullopt;
  return result;
}

std::optional<int64_t> parse_integer(const Value& value, int64_t base) {
  std::string text = number_text(value);
  const bool negative = !text.empty() && text[0] == '-';
  if (negative || (!text.empty() && text[0] == '+')) text.erase(0, 1);
  const auto prefix = [&](char letter) {
    return text.size() > 2 && text[0] == '0' && (text[1] | 32) == letter;
  };
  const int64_t marked = prefix('x') ? 16 : prefix('o') ? 8 : prefix('b') ? 2 : 0;
  if (marked && (base == 0 || base == marked)) {
    base = marked;
    text.erase(0, 2);
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36 || text.empty()) return std::nullopt;
  if (negative) text.insert(0, 1, '-');
  int64_t result = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, result, static_cast<int>(base));
  if (parsed.ec == std::errc::result_out_of_range && parsed.ptr == end)
    fail("an integer leaves the range of 64 bits");
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return result;
}

std::optional<int64_t> truncated(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::abs(value) >= 9223372036854775808.0) fail("an integer leaves the range of 64 bits");
  return static_cast<int64_t>(value);
}

Value filter_int(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  const Value fallback = bound.value_or(0, Value(int64_t{0}));
  if (input.is_undefined()) fail_undefined(input);
  if (const auto integer = input.integer()) return *integer;
  if (input.is_float()) {
    if (std::isinf(input.floating())) fail("infinity is no integer");
    const auto whole = truncated(input.floating());
    return whole ? Value(*whole) : fallback;
  }
  if (!input.is_string()) return fallback;
  runtime.scan(input.text().size());
  if (const auto integer = parse_integer(input, bound.integer(1, 10))) return *integer;
  const auto real = parse_double(input);
  const auto whole = real ? truncated(*real) : std::nullopt;
  return whole ? Value(*whole) : fallback;
}

Value filter_float(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  if (input.is_undefined()) fail_undefined(input);
  if (input.is_float()) return input;
  if (const auto integer = input.integer()) return static_cast<double>(*integer);
  if (input.is_string()) {
    runtime.scan(input.text().size());
    if (const auto real = parse_double(input)) return *real;
  }
  return bound.value_or(0, Value(0.0));
}

double round_half_even(double value, int64_t precision) {
  if (!std::isfinite(value) || precision > 323) return value;
  if (precision < -308) return std::copysign(0.0, value);
  if (precision >= 0) {
    char buffer[1024];  // printf rounds the exact binary value, as Python does
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), value);
    return std::strtod(buffer, nullptr);
  }
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(value / unit) * unit;
}

Value round_integer(int64_t value, int64_t precision) {
  if (precision >= 0) return value;
  if (precision < -18) return int64_t{0};
  int64_t unit = 1;
  for (int64_t i = precision; i < 0; ++i) unit *= 10;
  int64_t quotient = value / unit;
  const int64_t rest = std::abs(value % unit);
  if (rest > unit - rest || (rest == unit - rest && quotient % 2 != 0))
    quotient += value < 0 ? -1 : 1;
  int64_t result = 0;
  if (__builtin_mul_overflow(quotient, unit, &result))
    fail("an integer leaves the range of 64 bits");
  return result;
}

Value filter_round(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const int64_t precision = bound.integer(0, 0);
  const std::string method = bound.has(1) ? bound.text(1) : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    fail("the method of round must be common, ceil or floor");
  if (input.is_undefined()) fail_undefined(input);
  if (!input.is_number()) fail("round needs a number, not '{}'", input.type_name());
  if (method == "common")
    return input.is_float() ? Value(round_half_even(input.floating(), precision))
                            : round_integer(*input.integer(), precision);
  const Value unit = arithmetic(runtime, Operator::power, int64_t{10}, precision);
  const Value scaled = arithmetic(runtime, Operator::multiply, input, unit);
  Value whole = scaled;
  if (scaled.is_float()) {
    const double x = scaled.floating();
    const auto integer = truncated(method == "ceil" ? std::ceil(x) : std::floor(x));
    if (!integer) fail("round needs a finite number");
    whole = *integer;
  }
  return arithmetic(runtime, Operator::divide, whole, unit);
}

Value filter_filesizeformat(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("filesizeformat", arguments, {"binary"});
  const bool binary = bound.flag(runtime, 0, false);
  double bytes = 0;
  if (input.is_string()) {
    const auto parsed = parse_double(input);
    if (!parsed) fail("filesizeformat needs a number");
    bytes = *parsed;
  } else if (input.is_number()) {
    bytes = input.is_float() ? input.floating() : static_cast<double>(*input.integer());
  } else {
    fail("filesizeformat needs a number, not '{}'", input.type_name());
  }
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return Value("1 Byte");
  if (bytes < base) {
    const auto whole = truncated(bytes);
    if (!whole) fail("filesizeformat needs a finite number");
    return Value(fmt::format("{} Bytes", *whole));
  }
  static constexpr std::string_view letters = "kMGTPEZY";
  double unit = base;
  size_t i = 0;
  do unit *= base;
  while (bytes >= unit && ++i < letters.size());
  i = std::min(i, letters.size() - 1);
  if (bytes >= unit) unit = std::pow(base, static_cast<double>(letters.size() + 1));
  std::string prefix(1, letters[i]);
  if (binary) prefix = i == 0 ? "Ki" : prefix + "i";
  return Value(fmt::format("{:.1f} {}B", base * bytes / unit, prefix));
}

}  // namespace

const std::vector<FilterEntry>& number_filters() {
  static const std::vector<FilterEntry> entries{{"abs", filter_abs},
                                                {"d", filter_default},
                                                {"default", filter_default},
                                                {"float", filter_float},
                                                {"int", filter_int},
                                                {"round", filter_round},
                                                {"filesizeformat", filter_filesizeformat}};
  return entries;
}

FilterFunction find_filter(std::string_view name) {
  static const auto table = [] {
    std::map<std::string_view, FilterFunction> out;
    for (const auto* entries :
         {&text_filters(), &number_filters(), &sequence_filters(), &selection_filters()})
      for (const FilterEntry& entry : *entries) out.emplace(entry.name, entry.function);
    return out;
  }();
  const auto it = table.find(name);
  return it == table.end() ? nullptr : it->second;
}

FilterFunction require_filter(std::string_view name) {
  const auto filter = find_filter(name);
  if (!filter) fail("there is no filter named '{}'", name);
  return filter;
}

}  // namespace qnext::jinja
