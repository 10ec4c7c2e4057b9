// The three ways in which Python fills text: "%s" % x, "{}".format(x), and format specifications.
#pragma once

#include <string>
#include <string_view>

#include "text/template_value.h"

namespace qnext::jinja {

// left % right. A tuple gives one value a conversion, a dict the named ones.
std::string format_percent(Runtime& runtime, const Value& left, const Value& right);
// str.format, with {}, {0}, {name}, {a.b}, {a[0]}, !r !s, and specifications.
std::string format_braces(Runtime& runtime, const std::string& text, const Arguments& arguments);

// [[fill]align][sign][#][0][width][,][.precision][type]
struct Specification {
  std::string fill = " ";
  char align = 0;  // < > ^ =
  char sign = '-';
  bool alternate = false;
  char grouping = 0;  // , or _
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};
std::string format_value(Runtime& runtime, const Value& value, std::string_view specification);

// A number as text under a specification; throws Error where the type does not fit.
std::string format_integer(Runtime& runtime, int64_t value, const Specification& specification);
std::string format_float(Runtime& runtime, double value, const Specification& specification);
// `text` filled up to the width, counted in code points.
std::string pad(Runtime& runtime, std::string text, const Specification& specification);

}  // namespace qnext::jinja
