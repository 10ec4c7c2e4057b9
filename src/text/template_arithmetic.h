// Python's arithmetic operators on template values.
#pragma once

#include "text/template_value.h"

namespace qnext::jinja {

enum class Operator { add, subtract, multiply, divide, floor_divide, modulo, power };

// Throws Error where Python raises, and where an integer leaves 64 bits.
Value arithmetic(Runtime& runtime, Operator operation, const Value& left, const Value& right);
Value negate(const Value& value);
Value positive(const Value& value);
// str * count, bounded by the runtime's memory.
std::string repeat(Runtime& runtime, std::string_view text, int64_t count);

}  // namespace qnext::jinja
