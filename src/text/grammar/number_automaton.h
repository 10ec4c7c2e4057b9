// Which texts of numbers lie within a range: the automata behind minimum, maximum and multipleOf.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar/text_automaton.h"

namespace qnext::grammar {

// Digits before and behind the point that a number may have: whole numbers fit 64 bits, as many
// readers ask, and a model that finds no end cannot write digits for ever. With the exponents that
// free numbers may have, each is a finite double.
constexpr int most_digits = 18;
// Bounds may have more.
constexpr int most_bound_digits = 40;

// A decimal number, exactly.
struct Decimal {
  bool negative = false;
  std::string whole = "0";  // no zeros in front
  std::string fraction;     // no zeros behind
  // JSON text or what printf's %g writes. Throws Error where it has more than
  // most_bound_digits digits on a side of the point.
  static Decimal parse(std::string_view text);
  bool is_whole() const { return fraction.empty(); }
};

struct Bound {
  Decimal value;
  bool exclusive = false;
};

struct NumberLimits {
  std::vector<Bound> least;  // all of them hold
  std::vector<Bound> most;
  std::optional<int32_t> multiple_of;      // of whole numbers; at least 1
  std::optional<int32_t> fraction_digits;  // at most so many
  bool free() const { return least.empty() && most.empty() && !multiple_of && !fraction_digits; }
};

// -?(0|[1-9][0-9]*) within the limits; never "-0".
TextAutomaton integer_automaton(const NumberLimits& limits);
// JSON's numbers within the limits; with an exponent only where there are none, as texts of one
// value would else be without number.
TextAutomaton number_automaton(const NumberLimits& limits);

}  // namespace qnext::grammar
