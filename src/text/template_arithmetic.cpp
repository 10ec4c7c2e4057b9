#include "text/template_arithmetic.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "text/template_format.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"

namespace qnext::jinja {

namespace {

constexpr const char* symbols[] = {"+", "-", "*", "/", "//", "%", "**"};

[[noreturn]] void fail_operands(Operator operation, const Value& left, const Value& right) {
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  fail("cannot compute '{}' {} '{}'", left.type_name(), symbols[static_cast<int>(operation)],
       right.type_name());
}

[[noreturn]] void fail_overflow() {
  fail("an integer leaves the range of 64 bits");
}
[[noreturn]] void fail_zero() {
  fail("division by zero");
}

double as_double(const Value& value) {
  return value.is_float() ? value.floating() : static_cast<double>(*value.integer());
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) fail_zero();
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) fail_overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_overflow();
  }
  return result;
}

// True division of integers rounds once: through the 64-bit mantissa of long double it could round
// twice, so only quotients of integers that doubles hold exactly take the plain way.
double integer_quotient(int64_t a, int64_t b) {
  constexpr int64_t exact = int64_t{1} << 53;
  if (std::abs(static_cast<double>(a)) <= exact && std::abs(static_cast<double>(b)) <= exact)
    return static_cast<double>(a) / static_cast<double>(b);
  return static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b));
}

Value integer_arithmetic(Operator operation, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (operation) {
    case Operator::add:
      if (__builtin_add_overflow(a, b, &result)) fail_overflow();
      return result;
    case Operator::subtract:
      if (__builtin_sub_overflow(a, b, &result)) fail_overflow();
      return result;
    case Operator::multiply:
      if (__builtin_mul_overflow(a, b, &result)) fail_overflow();
      return result;
    case Operator::power:
      return integer_power(a, b);
    default:
      break;
  }
  if (b == 0) fail_zero();
  if (operation == Operator::divide) return integer_quotient(a, b);
  if (b == -1) {  // INT64_MIN / -1 traps
    if (operation == Operator::modulo) return int64_t{0};
    if (__builtin_sub_overflow(int64_t{0}, a, &result)) fail_overflow();
    return result;
  }
  const int64_t remainder = a % b;
  const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
  if (operation == Operator::modulo) return remainder + (adjust ? b : 0);
  return a / b - (adjust ? 1 : 0);
}

double float_modulo(double a, double b) {
  double remainder = std::fmod(a, b);
  if (remainder != 0) {
    if ((b < 0) != (remainder < 0)) remainder += b;
  } else {
    remainder = std::copysign(0.0, b);
  }
  return remainder;
}

double float_floor_divide(double a, double b) {
  const double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0 && (b < 0) != (remainder < 0)) quotient -= 1.0;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1.0 : floor;
}

Value float_power(double a, double b) {
  if (a == 0 && b < 0) fail_zero();
  if (a < 0 && std::isfinite(a) && std::isfinite(b) && std::trunc(b) != b)
    fail("a negative number to a fractional power is complex");
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b))
    fail("the result of ** is too large");
  return result;
}

Value float_arithmetic(Operator operation, double a, double b) {
  switch (operation) {
    case Operator::add:
      return a + b;
    case Operator::subtract:
      return a - b;
    case Operator::multiply:
      return a * b;
    case Operator::power:
      return float_power(a, b);
    default:
      break;
  }
  if (b == 0) fail_zero();
  if (operation == Operator::divide) return a / b;
  return operation == Operator::modulo ? float_modulo(a, b) : float_floor_divide(a, b);
}

Value join_strings(Runtime& runtime, const String& left, const String& right) {
  const bool safe = left.safe || right.safe;
  const bool escapes_left = safe && !left.safe, escapes_right = safe && !right.safe;
  runtime.allocate(left.text.size() + right.text.size());
  return make_string(runtime,
                     (escapes_left ? escape_html(runtime, left.text) : left.text) +
                         (escapes_right ? escape_html(runtime, right.text) : right.text),
                     safe);
}

Value repeat_sequence(Runtime& runtime, const Value& sequence, int64_t count) {
  const auto& items = sequence.items();
  runtime.allocate(count, items.size() * sizeof(Value));
  std::vector<Value> out;
  for (int64_t i = 0; i < count && !items.empty(); ++i)
    out.insert(out.end(), items.begin(), items.end());
  return make_sequence(runtime, std::move(out),
                       sequence.is_list() ? Sequence::Kind::list : Sequence::Kind::tuple);
}

Value repeat_value(Runtime& runtime, const Value& value, int64_t count) {
  if (value.is_sequence()) return repeat_sequence(runtime, value, count);
  return make_string(runtime, repeat(runtime, value.text(), count), value.string().safe);
}

Value join_sequences(Runtime& runtime, const Value& left, const Value& right) {
  std::vector<Value> items = to_vector(runtime, left);
  runtime.allocate(right.items().size() * sizeof(Value));
  items.insert(items.end(), right.items().begin(), right.items().end());
  return make_sequence(runtime, std::move(items),
                       left.is_list() ? Sequence::Kind::list : Sequence::Kind::tuple);
}

}  // namespace

std::string repeat(Runtime& runtime, std::string_view text, int64_t count) {
  std::string out;
  if (count <= 0 || text.empty()) return out;
  runtime.allocate(count, text.size());
  out.reserve(text.size() * static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) out += text;
  return out;
}

Value arithmetic(Runtime& runtime, Operator operation, const Value& left, const Value& right) {
  const auto a = left.integer(), b = right.integer();
  if (a && b) return integer_arithmetic(operation, *a, *b);
  if (left.is_number() && right.is_number())
    return float_arithmetic(operation, as_double(left), as_double(right));
  if (operation == Operator::add) {
    if (left.is_string() && right.is_string())
      return join_strings(runtime, left.string(), right.string());
    if (left.is_sequence() && right.is_sequence() && left.is_list() == right.is_list())
      return join_sequences(runtime, left, right);
    // Markup + other: the other one becomes text only where it knows HTML; Python refuses the rest.
  }
  if (operation == Operator::multiply) {
    if (b && (left.is_string() || left.is_sequence())) return repeat_value(runtime, left, *b);
    if (a && (right.is_string() || right.is_sequence())) return repeat_value(runtime, right, *a);
  }
  if (operation == Operator::modulo && left.is_string())
    return make_string(runtime, format_percent(runtime, left, right), left.string().safe);
  fail_operands(operation, left, right);
}

Value negate(const Value& value) {
  if (const auto integer = value.integer()) {
    if (*integer == std::numeric_limits<int64_t>::min()) fail_overflow();
    return -*integer;
  }
  if (value.is_float()) return -value.floating();
  if (value.is_undefined()) fail_undefined(value);
  fail("cannot negate a '{}'", value.type_name());
}

Value positive(const Value& value) {
  if (const auto integer = value.integer()) return *integer;
  if (value.is_float()) return value;
  if (value.is_undefined()) fail_undefined(value);
  fail("cannot apply + to a '{}'", value.type_name());
}

}  // namespace qnext::jinja
