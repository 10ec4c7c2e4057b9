// Python's truth, equality, order, iteration and printing for template values.
// All walk values of bounded depth and charge the runtime for what they touch.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/template_value.h"

namespace qnext::jinja {

bool truth(Runtime& runtime, const Value& value);
bool equal(Runtime& runtime, const Value& left, const Value& right);
// a < b and a <= b; throw Error where Python raises TypeError.
bool less(Runtime& runtime, const Value& left, const Value& right);
bool less_equal(Runtime& runtime, const Value& left, const Value& right);
// Throws Error for what Python cannot hash.
uint64_t hash_value(Runtime& runtime, const Value& value);
uint64_t hash_text(std::string_view text);
bool contains(Runtime& runtime, const Value& container, const Value& needle);

bool is_iterable(const Value& value);
std::unique_ptr<Cursor> iterate(Runtime& runtime, const Value& value);
std::vector<Value> to_vector(Runtime& runtime, const Value& value);
// Python's len; throws Error where there is none.
int64_t length(Runtime& runtime, const Value& value);
std::optional<int64_t> length_if_sized(Runtime& runtime, const Value& value);

// str() and repr().
std::string to_text(Runtime& runtime, const Value& value);
void append_text(Runtime& runtime, std::string& out, const Value& value);
void append_repr(Runtime& runtime, std::string& out, const Value& value);
std::string repr(Runtime& runtime, const Value& value);
std::string float_text(double value);
std::string escape_html(Runtime& runtime, std::string_view text);
// Text as a string value: a string as it is, anything else through str().
Value soft_string(Runtime& runtime, const Value& value);

// Throws the Error of an undefined value that is used.
[[noreturn]] void fail_undefined(const Value& value);

}  // namespace qnext::jinja
