// Jinja's filters and tests by name.
#pragma once

#include <string>
#include <string_view>

#include "text/template_value.h"

namespace qnext::jinja {

using FilterFunction = Value (*)(Runtime& runtime, const Value& input, const Arguments& arguments);
using TestFunction = bool (*)(Runtime& runtime, const Value& input, const Arguments& arguments);

// Null where there is none of that name.
FilterFunction find_filter(std::string_view name);
TestFunction find_test(std::string_view name);
// The same, but an unknown name throws Error.
FilterFunction require_filter(std::string_view name);
TestFunction require_test(std::string_view name);

// json.dumps(value, ensure_ascii=False) with transformers' parameters.
Value filter_tojson(Runtime& runtime, const Value& input, const Arguments& arguments);

// One entry of the tables that the filter files give.
struct FilterEntry {
  std::string_view name;
  FilterFunction function;
};
const std::vector<FilterEntry>& text_filters();
const std::vector<FilterEntry>& number_filters();
const std::vector<FilterEntry>& sequence_filters();
const std::vector<FilterEntry>& selection_filters();

}  // namespace qnext::jinja
