#include "text/grammar/number_automaton.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "text/grammar/regular_expression.h"

namespace qnext::grammar {
namespace {

constexpr std::u32string_view number_characters = U"-.0123456789";
constexpr int32_t largest_divisor = 1000;

// Reads a number digit by digit beside a bound and knows at any place how the two compare, should
// the number end there.
struct Comparison {
  enum Order : int8_t { less = -1, equal = 0, greater = 1 };
  bool negative = false;
  bool in_fraction = false;
  int32_t digits = 0;   // read on this side of the point, counted to where the bound has no more
  Order order = equal;  // of what both have had; later digits do not change it once it is decided
  bool operator<(const Comparison& other) const { return key() < other.key(); }

 private:
  std::tuple<bool, bool, int32_t, int8_t> key() const {
    return {negative, in_fraction, digits, order};
  }
};

using Order = Comparison::Order;

Order compare_digits(char32_t digit, char other) {
  if (static_cast<char>(digit) == other) return Order::equal;
  return static_cast<char>(digit) < other ? Order::less : Order::greater;
}

// Of the whole parts, by their lengths first.
Order whole_order(const Comparison& at, const Decimal& bound) {
  const auto length = static_cast<int32_t>(bound.whole.size());
  if (at.digits != length) return at.digits < length ? Order::less : Order::greater;
  return at.order;
}

std::optional<Comparison> advance(Comparison at, char32_t c, const Decimal& bound) {
  if (c == '-') {
    at.negative = true;
    return at;
  }
  if (c == '.') {
    if (at.in_fraction) return std::nullopt;
    at.order = whole_order(at, bound);
    at.in_fraction = true;
    at.digits = 0;
    return at;
  }
  const std::string& digits = at.in_fraction ? bound.fraction : bound.whole;
  const auto place = static_cast<size_t>(at.digits);
  if (place < digits.size()) {
    if (at.order == Order::equal) at.order = compare_digits(c, digits[place]);
    ++at.digits;
  } else if (at.in_fraction) {
    if (at.order == Order::equal && c != '0') at.order = Order::greater;
  } else {
    at.digits = static_cast<int32_t>(digits.size()) + 1;
  }
  return at;
}

// Of the magnitudes, should the number end here.
Order magnitude_order(const Comparison& at, const Decimal& bound) {
  if (!at.in_fraction) {
    const Order order = whole_order(at, bound);
    return order == Order::equal && !bound.fraction.empty() ? Order::less : order;
  }
  // The digits that the bound has beyond are not all zero.
  const bool bound_goes_on = static_cast<size_t>(at.digits) < bound.fraction.size();
  return at.order == Order::equal && bound_goes_on ? Order::less : at.order;
}

Order value_order(const Comparison& at, const Decimal& bound) {
  // No number is less than a bound's magnitude of zero, but zero may carry a sign.
  const Decimal zero;
  const bool bound_is_zero = bound.whole == "0" && bound.fraction.empty();
  const Order order = magnitude_order(at, bound);
  if (bound_is_zero && order == Order::equal) return Order::equal;
  if (at.negative != bound.negative) {
    // Of two zeros the signs say nothing, and the bound is none: its sign decides.
    return at.negative ? Order::less : Order::greater;
  }
  return at.negative ? static_cast<Order>(-order) : order;
}

// Texts whose number compares with the bound as asked. What is no number is judged by others.
TextAutomaton compared(const Bound& bound, bool least) {
  return explore(
      Comparison{}, number_characters,
      [&](const Comparison& at, char32_t c) { return advance(at, c, bound.value); },
      [&](const Comparison& at) {
        const Order order = value_order(at, bound.value);
        if (order == Order::equal) return !bound.exclusive;
        return (order == Order::greater) == least;
      });
}

// State: the remainder of the digits so far.
TextAutomaton multiples(int32_t divisor) {
  return explore(
      0, number_characters,
      [&](int32_t remainder, char32_t c) -> std::optional<int32_t> {
        if (c == '-') return remainder;
        if (c == '.') return std::nullopt;
        return (remainder * 10 + static_cast<int32_t>(c - '0')) % divisor;
      },
      [](int32_t remainder) { return remainder == 0; });
}

TextAutomaton within(TextAutomaton form, const NumberLimits& limits) {
  for (const Bound& bound : limits.least) form = form & compared(bound, true);
  for (const Bound& bound : limits.most) form = form & compared(bound, false);
  if (limits.multiple_of.value_or(1) != 1) {
    if (*limits.multiple_of > largest_divisor)
      fail("multiples of {} cannot be enforced: {} is the most", *limits.multiple_of,
           largest_divisor);
    form = form & multiples(*limits.multiple_of);
  }
  return form;
}

}  // namespace

Decimal Decimal::parse(std::string_view text) {
  Decimal value;
  if (text.starts_with('-')) {
    value.negative = true;
    text.remove_prefix(1);
  }
  int exponent = 0;
  const size_t e = text.find_first_of("eE");
  if (e != std::string_view::npos) {
    exponent = std::stoi(std::string(text.substr(e + 1)));
    text = text.substr(0, e);
  }
  const size_t point = std::min(text.find('.'), text.size());
  std::string digits(text.substr(0, point));
  if (point < text.size()) digits += text.substr(point + 1);
  const int64_t place = static_cast<int64_t>(point) + exponent;  // of the point within the digits
  if (place > most_bound_digits || std::ssize(digits) - place > 2 * most_bound_digits)
    fail("a bound of more than {} digits cannot be enforced", most_bound_digits);
  if (place < 0) {
    std::string zeros(static_cast<size_t>(-place), '0');
    zeros += digits;
    digits = std::move(zeros);
  }
  const auto split = static_cast<size_t>(std::max<int64_t>(place, 0));
  if (digits.size() < split) digits.append(split - digits.size(), '0');
  value.whole = digits.substr(0, split);
  value.fraction = digits.substr(split);
  value.whole.erase(0, std::min(value.whole.find_first_not_of('0'), value.whole.size()));
  if (value.whole.empty()) value.whole.assign(1, '0');
  value.fraction.erase(value.fraction.find_last_not_of('0') + 1);
  if (value.fraction.size() > most_bound_digits)
    fail("a bound of more than {} digits cannot be enforced", most_bound_digits);
  if (value.whole == "0" && value.fraction.empty()) value.negative = false;
  return value;
}

TextAutomaton integer_automaton(const NumberLimits& limits) {
  static const TextAutomaton form =
      regular_expression(fmt::format("0|-?[1-9][0-9]{{0,{}}}", most_digits - 1), true);
  return within(form, limits);
}

TextAutomaton number_automaton(const NumberLimits& limits) {
  const std::string whole = fmt::format("-?(0|[1-9][0-9]{{0,{}}})", most_digits - 1);
  if (limits.free()) {
    static const TextAutomaton form = regular_expression(
        fmt::format("{}(\\.[0-9]{{1,{}}})?([eE][+-]?[0-9]{{1,2}})?", whole, most_digits), true);
    return form;
  }
  if (limits.multiple_of) return integer_automaton(limits);
  const int32_t fraction = limits.fraction_digits.value_or(most_digits);
  if (fraction == 0) return integer_automaton(limits);
  return within(regular_expression(fmt::format("{}(\\.[0-9]{{1,{}}})?", whole, fraction), true),
                limits);
}

}  // namespace qnext::grammar
