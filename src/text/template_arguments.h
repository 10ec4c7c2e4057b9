// Binds the arguments of a call to the parameters of a function of ours.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/template_value.h"

namespace qnext::jinja {

class Bound {
 public:
  // Throws Error where an argument is missing, unknown or given twice. The first `required`
  // parameters must be given.
  Bound(std::string_view function, const Arguments& arguments,
        std::initializer_list<std::string_view> parameters, size_t required = 0);

  bool has(size_t index) const { return values_[index].has_value(); }
  const Value& operator[](size_t index) const { return *values_[index]; }
  Value value_or(size_t index, const Value& fallback) const {
    return has(index) ? *values_[index] : fallback;
  }
  // None counts as absent.
  bool given(size_t index) const { return has(index) && !values_[index]->is_none(); }
  int64_t integer(size_t index, int64_t fallback) const;
  bool flag(Runtime& runtime, size_t index, bool fallback) const;
  const std::string& text(size_t index) const;  // must be a string

 private:
  std::string_view function_;
  std::vector<std::string_view> parameters_;
  std::vector<std::optional<Value>> values_;
};

}  // namespace qnext::jinja
