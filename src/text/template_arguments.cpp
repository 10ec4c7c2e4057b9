#include "text/template_arguments.h"

#include <algorithm>

#include "base/error.h"
#include "text/template_operations.h"

namespace qnext::jinja {

Bound::Bound(std::string_view function, const Arguments& arguments,
             std::initializer_list<std::string_view> parameters, size_t required)
    : function_(function), parameters_(parameters), values_(parameters.size()) {
  if (arguments.positional.size() > values_.size())
    fail("{} takes at most {} arguments, not {}", function, values_.size(),
         arguments.positional.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = arguments.positional[i];
  for (const auto& [name, value] : arguments.keywords) {
    const auto it = std::find(parameters_.begin(), parameters_.end(), name);
    if (it == parameters_.end()) fail("{} has no parameter '{}'", function, name);
    auto& slot = values_[static_cast<size_t>(it - parameters_.begin())];
    if (slot) fail("{} got its parameter '{}' twice", function, name);
    slot = value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i]) fail("{} needs the argument '{}'", function, parameters_[i]);
}

int64_t Bound::integer(size_t index, int64_t fallback) const {
  if (!has(index)) return fallback;
  const Value& value = *values_[index];
  if (value.is_undefined()) fail_undefined(value);
  const auto integer = value.integer();
  if (!integer)
    fail("{} needs an integer as '{}', not '{}'", function_, parameters_[index], value.type_name());
  return *integer;
}

bool Bound::flag(Runtime& runtime, size_t index, bool fallback) const {
  return has(index) ? truth(runtime, *values_[index]) : fallback;
}

const std::string& Bound::text(size_t index) const {
  const Value& value = *values_[index];
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_string())
    fail("{} needs a string as '{}', not '{}'", function_, parameters_[index], value.type_name());
  return value.text();
}

}  // namespace qnext::jinja
