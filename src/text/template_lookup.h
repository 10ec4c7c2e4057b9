// value.name, value[key] and value[a:b:c], with Jinja's rules in its immutable sandbox.
#pragma once

#include <optional>
#include <string>

#include "text/template_value.h"

namespace qnext::jinja {

// A method before an item: {'items': 1}.items is the method. Undefined where there is neither.
Value get_attribute(Runtime& runtime, const Value& value, const std::string& name);
// An item before a method.
Value get_item(Runtime& runtime, const Value& value, const Value& key);
// Each bound None or an integer.
Value get_slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
                const Value& step);

// The method of a str, list, tuple or dict. Those that would change a list or dict are undefined,
// with a problem that says so once they are called.
std::optional<Value> find_method(Runtime& runtime, const Value& value, const std::string& name);

}  // namespace qnext::jinja
