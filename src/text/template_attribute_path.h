// "function.name" or "items.0": the attribute argument of map, sort, sum, ...
#pragma once

#include <vector>

#include "text/template_value.h"

namespace qnext::jinja {

class AttributePath {
 public:
  // None: the item itself. An integer: that item. What is absent becomes `fallback` unless None.
  explicit AttributePath(const Value& attribute, Value fallback = {});
  Value get(Runtime& runtime, const Value& item) const;

 private:
  std::vector<Value> parts_;
  Value fallback_;
};

}  // namespace qnext::jinja
