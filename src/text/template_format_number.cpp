// Format specifications and how numbers look under them.
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "text/template_arithmetic.h"
#include "text/template_format.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

constexpr int64_t maximum_precision = 400;  // beyond it no double has digits worth printing

bool is_align(char c) {
  return c == '<' || c == '>' || c == '^' || c == '=';
}

int64_t read_number(std::string_view text, size_t& i) {
  int64_t value = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
    value = value * 10 + (text[i] - '0');
    if (value > int64_t{1} << 31) fail("a format width or precision is too large");
  }
  return value;
}

Specification parse_specification(std::string_view text) {
  Specification out;
  size_t i = 0;
  const size_t first = text.empty() ? 0 : sequence_length(text, 0);
  if (first < text.size() && is_align(text[first])) {
    out.fill = text.substr(0, first);
    out.align = text[first];
    i = first + 1;
  } else if (!text.empty() && is_align(text[0])) {
    out.align = text[0];
    i = 1;
  }
  if (i < text.size() && (text[i] == '+' || text[i] == '-' || text[i] == ' ')) out.sign = text[i++];
  if (i < text.size() && text[i] == '#') out.alternate = true, ++i;
  if (i < text.size() && text[i] == '0') {
    ++i;
    if (!out.align) out.fill = "0", out.align = '=';
  }
  out.width = read_number(text, i);
  if (i < text.size() && (text[i] == ',' || text[i] == '_')) out.grouping = text[i++];
  if (i < text.size() && text[i] == '.') {
    const size_t digits = ++i;
    out.precision = read_number(text, i);
    if (i == digits) fail("a format specification lacks the precision after '.'");
  }
  if (i < text.size()) out.type = text[i++];
  if (i != text.size()) fail("'{}' is no format specification", text);
  return out;
}

void group_digits(std::string& digits, char separator, size_t size) {
  const size_t end = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  for (size_t i = end; i > size; i -= size) digits.insert(i - size, 1, separator);
}

std::string with_sign(bool negative, std::string digits, const Specification& specification) {
  if (negative) return "-" + digits;
  return specification.sign == '-' ? digits : specification.sign + digits;
}

std::string digits_in_base(uint64_t value, unsigned base, bool upper) {
  // Not indexed in place: gcc 12's -fsanitize=bounds evaluates the index in one branch only.
  const char* digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string out;
  do {
    out.insert(out.begin(), digits[value % base]);
    value /= base;
  } while (value);
  return out;
}

std::string print(double value, char type, int64_t precision) {
  const char format[] = {'%', '.', '*', type, 0};
  char buffer[1024];
  const int length =
      std::snprintf(buffer, sizeof buffer, format, static_cast<int>(precision), value);
  return {buffer, static_cast<size_t>(length)};
}

// No type: like 'g' with enough digits to read back, but always with a point or an exponent.
std::string general(double value, int64_t precision) {
  if (precision < 0) return float_text(value);
  std::string text = print(value, 'g', std::max<int64_t>(precision, 1));
  // Where 'g' shows a whole number with all its digits, Python takes the exponent form one earlier.
  if (text.find_first_of(".en") == std::string::npos) {
    if (static_cast<int64_t>(text.size()) - (text[0] == '-') >= precision && precision > 0) {
      std::string exponent = print(value, 'e', precision - 1);
      const size_t e = exponent.find('e');
      std::string mantissa = exponent.substr(0, e);
      if (mantissa.find('.') != std::string::npos) {
        mantissa.erase(mantissa.find_last_not_of('0') + 1);
        if (mantissa.back() == '.') mantissa.pop_back();
      }
      return mantissa + exponent.substr(e);
    }
    text += ".0";
  }
  return text;
}

}  // namespace

std::string pad(Runtime& runtime, std::string text, const Specification& specification) {
  const auto length = static_cast<int64_t>(count_code_points(text));
  const int64_t missing = specification.width - length;
  if (missing <= 0) return text;
  const auto filler = [&](int64_t count) { return repeat(runtime, specification.fill, count); };
  runtime.allocate(text.size());
  switch (specification.align) {
    case '<':
      return text + filler(missing);
    case '^':
      return filler(missing / 2) + text + filler(missing - missing / 2);
    case '=': {
      size_t prefix = !text.empty() && (text[0] == '-' || text[0] == '+' || text[0] == ' ') ? 1 : 0;
      if (text.size() > prefix + 1 && text[prefix] == '0' &&
          std::string_view("xXob").find(text[prefix + 1]) != std::string_view::npos)
        prefix += 2;
      return text.substr(0, prefix) + filler(missing) + text.substr(prefix);
    }
    default:
      return filler(missing) + text;
  }
}

std::string format_integer(Runtime& runtime, int64_t value, const Specification& specification) {
  const char type = specification.type ? specification.type : 'd';
  if (std::string_view("eEfFgG%").find(type) != std::string_view::npos)
    return format_float(runtime, static_cast<double>(value), specification);
  if (specification.precision >= 0) fail("an integer takes no precision in its format");
  if (type == 'c') {
    if (value < 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      fail("{} is no character", value);
    std::string out;
    append_code_point(out, static_cast<uint32_t>(value));
    return pad(runtime, out, specification);
  }
  const unsigned base = type == 'd' || type == 'n'     ? 10
                        : type == 'b'                  ? 2
                        : type == 'o'                  ? 8
                        : (type == 'x' || type == 'X') ? 16
                                                       : 0;
  if (base == 0) fail("'{}' formats no integer", type);
  const uint64_t magnitude =
      value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string digits = digits_in_base(magnitude, base, type == 'X');
  if (specification.grouping) group_digits(digits, specification.grouping, base == 10 ? 3 : 4);
  if (specification.alternate && base != 10) digits = std::string("0") + type + digits;
  return pad(runtime, with_sign(value < 0, digits, specification), specification);
}

std::string format_float(Runtime& runtime, double value, const Specification& specification) {
  const char type = specification.type;
  if (specification.precision > maximum_precision)
    fail("a precision of {} digits is too large", specification.precision);
  const double magnitude = std::abs(value);
  const int64_t precision = specification.precision < 0 ? 6 : specification.precision;
  std::string digits;
  switch (type) {
    case 0:
      digits = general(magnitude, specification.precision);
      break;
    case '%':
      digits = print(magnitude * 100, 'f', precision) + "%";
      break;
    case 'n':
      digits = print(magnitude, 'g', std::max<int64_t>(precision, 1));
      break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      digits = print(magnitude, type, precision);
      break;
    default:
      fail("'{}' formats no float", type);
  }
  if (specification.grouping) group_digits(digits, specification.grouping, 3);
  return pad(runtime, with_sign(std::signbit(value) && !std::isnan(value), digits, specification),
             specification);
}

std::string format_value(Runtime& runtime, const Value& value, std::string_view text) {
  runtime.scan(text.size());
  if (text.empty()) return to_text(runtime, value);
  Specification specification = parse_specification(text);
  if (const auto integer = value.integer()) return format_integer(runtime, *integer, specification);
  if (value.is_float()) return format_float(runtime, value.floating(), specification);
  if (!value.is_string()) fail("a '{}' takes no format specification", value.type_name());
  if ((specification.type && specification.type != 's') || specification.sign != '-' ||
      specification.grouping || specification.alternate)
    fail("'{}' formats no string", text);
  if (specification.align == '=') {
    if (specification.fill != "0") fail("'=' aligns no string");
    specification.align = '<';
  }
  if (!specification.align) specification.align = '<';
  std::string out = to_text(runtime, value);
  if (specification.precision >= 0)
    out.resize(offset_of_code_point(out, static_cast<size_t>(specification.precision)));
  return pad(runtime, std::move(out), specification);
}

}  // namespace qnext::jinja
