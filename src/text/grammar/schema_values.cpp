// Values that hold no others, and lists of values.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "text/grammar/regular_expression.h"
#include "text/grammar/schema_compiler.h"
#include "text/grammar/string_formats.h"

namespace qnext::grammar {
namespace {

constexpr std::pair<const char*, unsigned> type_names[] = {
    {"null", 1},    {"boolean", 2}, {"integer", 4}, {"number", 8},
    {"string", 16}, {"array", 32},  {"object", 64}};

bool same_value(const json::Value& a, const json::Value& b) {
  if (a.is_number() && b.is_number()) return a.as_double() == b.as_double();
  if (a.is_array() && b.is_array())
    return std::equal(a.as_array().begin(), a.as_array().end(), b.as_array().begin(),
                      b.as_array().end(), same_value);
  if (a.is_object() && b.is_object())
    return a.as_object().size() == b.as_object().size() &&
           std::all_of(a.as_object().begin(), a.as_object().end(), [&](const auto& entry) {
             const json::Value* other = b.find(entry.first);
             return other && same_value(entry.second, *other);
           });
  return a == b;
}

std::string number_text(const json::Value& value) {
  return value.is_integer() ? std::to_string(value.as_integer())
                            : json::format_double(value.as_double());
}

}  // namespace

unsigned SchemaCompiler::types_of(const Part& part) const {
  const json::Value* type = find(part, "type");
  if (!type) return all_types;
  const auto one = [&](const json::Value& name) -> unsigned {
    for (const auto& [known, bit] : type_names)
      if (name.is_string() && name.as_string() == known) return bit;
    refuse(part, "type must name null, boolean, integer, number, string, array or object");
  };
  if (!type->is_array()) return one(*type);
  unsigned types = 0;
  for (const json::Value& name : type->as_array()) types |= one(name);
  return types;
}

// A whole number is a number too.
unsigned SchemaCompiler::types_of(const Parts& parts) const {
  unsigned types = all_types;
  for (const Part& part : parts) {
    unsigned own = types_of(part);
    if (own & number_type) own |= integer_type;
    types &= own;
  }
  return types;
}

// Whether a keyword of this type of value stands anywhere.
bool SchemaCompiler::says(const Parts& parts, unsigned type) const {
  const auto any = [&](std::initializer_list<const char*> keywords) {
    return std::any_of(parts.begin(), parts.end(), [&](const Part& part) {
      return std::any_of(keywords.begin(), keywords.end(),
                         [&](const char* keyword) { return find(part, keyword) != nullptr; });
    });
  };
  switch (type) {
    case number_type:
    case integer_type:
      return any({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"});
    case string_type:
      return any({"minLength", "maxLength", "pattern", "format"});
    case array_type:
      return any(
          {"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"});
    case object_type:
      return any({"properties", "required", "additionalProperties", "patternProperties",
                  "propertyNames", "minProperties", "maxProperties"});
    default:
      return false;
  }
}

void SchemaCompiler::compile_types(int32_t rule, const Parts& parts, unsigned types) {
  if (const auto values = listed_values(parts)) return compile_values(rule, parts, types, *values);
  const int32_t from = builder_.rule_start(rule);
  const int32_t to = builder_.rule_end(rule);
  if (types & null_type) builder_.literal(from, "null", to);
  if (types & boolean_type) builder_.call(from, rules_.boolean(), to);
  if (types & (number_type | integer_type)) compile_number(rule, parts, !(types & number_type));
  if (types & string_type) compile_string(rule, parts);
  if (types & array_type) {
    if (says(parts, array_type))
      compile_array(rule, parts);
    else
      builder_.call(from, rules_.any_array(), to);
  }
  if (types & object_type) {
    if (says(parts, object_type))
      compile_object(rule, parts);
    else
      builder_.call(from, rules_.any_object(), to);
  }
}

// --- enum and const ---------------------------------------------------------------------------

std::optional<std::vector<json::Value>> SchemaCompiler::listed_values(const Parts& parts) const {
  std::optional<std::vector<json::Value>> values;
  const auto keep = [&](const json::Array& list) {
    if (!values) {
      values.emplace();
      for (const json::Value& value : list)
        if (std::none_of(values->begin(), values->end(),
                         [&](const json::Value& known) { return same_value(known, value); }))
          values->push_back(value);
      return;
    }
    std::erase_if(*values, [&](const json::Value& value) {
      return std::none_of(list.begin(), list.end(),
                          [&](const json::Value& other) { return same_value(value, other); });
    });
  };
  for (const Part& part : parts) {
    if (const json::Value* list = find(part, "enum")) {
      if (!list->is_array()) refuse(part, "enum must be a list");
      keep(list->as_array());
    }
    if (const json::Value* value = find(part, "const")) keep({*value});
  }
  return values;
}

// Whether what else the schemas say allows it. What they say of members of lists and objects is not
// looked into: then a list of values is refused.
bool SchemaCompiler::holds(const json::Value& value, const Parts& parts, unsigned types) const {
  if (const auto listed = listed_values(parts))
    if (std::none_of(listed->begin(), listed->end(),
                     [&](const json::Value& one) { return same_value(one, value); }))
      return false;
  const auto no_detail = [&](unsigned type) {
    if (says(parts, type))
      refuse(parts[0], "a list of values that hold others cannot stand beside what limits these");
    return true;
  };
  if (value.is_null()) return (types & null_type) != 0;
  if (value.is_bool()) return (types & boolean_type) != 0;
  if (value.is_array()) return (types & array_type) != 0 && no_detail(array_type);
  if (value.is_object()) return (types & object_type) != 0 && no_detail(object_type);
  if (value.is_string()) {
    if (!(types & string_type)) return false;
    const auto automaton = string_automaton(parts, nullptr);
    return !automaton || automaton->accepts(value.as_string());
  }
  const double number = value.as_double();
  const bool is_whole = value.is_integer() || std::floor(number) == number;
  if (!(types & number_type) && !(is_whole && (types & integer_type))) return false;
  const NumberLimits limits = number_limits(parts);
  if (limits.free()) return true;
  const std::string text = is_whole && std::abs(number) < 1e15
                               ? std::to_string(static_cast<int64_t>(number))
                               : number_text(value);
  return number_automaton(limits).accepts(text);
}

void SchemaCompiler::compile_values(int32_t rule, const Parts& parts, unsigned types,
                                    const std::vector<json::Value>& values) {
  std::vector<std::string> texts;
  for (const json::Value& value : values) {
    if (!holds(value, parts, types)) continue;
    if (value.is_string())
      texts.push_back(value.as_string());
    else
      rules_.value(builder_.rule_start(rule), value, builder_.rule_end(rule));
  }
  if (!texts.empty())
    rules_.quoted(builder_.rule_start(rule), TextAutomaton::one_of(texts), false,
                  builder_.rule_end(rule));
}

// --- strings ----------------------------------------------------------------------------------

std::optional<TextAutomaton> SchemaCompiler::string_automaton(
    const Parts& parts, std::optional<Counted>* counted) const {
  std::optional<TextAutomaton> all;
  int64_t least = 0;
  std::optional<int64_t> most;
  const auto restrict_to = [&](const TextAutomaton& automaton) {
    all = all ? *all & automaton : automaton;
  };
  for (const Part& part : parts) {
    least = std::max(least, count(part, "minLength").value_or(0));
    if (const auto limit = count(part, "maxLength")) most = std::min(most.value_or(*limit), *limit);
    if (const json::Value* pattern = find(part, "pattern")) {
      if (!pattern->is_string()) refuse(part, "pattern must be a string");
      restrict_to(pattern_of(part, pattern->as_string()));
    }
    const json::Value* format = find(part, "format");
    if (!format || !format->is_string()) continue;
    if (const auto expression = format_expression(format->as_string()))
      restrict_to(regular_expression(*expression, true));
    else if (is_format(format->as_string()))
      refuse(part, fmt::format("format {} cannot be enforced", format->as_string()));
  }
  if (least == 0 && !most) return all;
  try {
    const TextAutomaton lengths = TextAutomaton::repeated(all_code_points(), least, most);
    if (!all && counted) *counted = Counted{least, most.value_or(-1)};
    restrict_to(lengths);
  } catch (const Error& error) {
    refuse(parts[0], error.what());
  }
  return all;
}

void SchemaCompiler::compile_string(int32_t rule, const Parts& parts) {
  std::optional<Counted> counted;
  const auto automaton = string_automaton(parts, &counted);
  const int32_t from = builder_.rule_start(rule);
  const int32_t to = builder_.rule_end(rule);
  if (!automaton)
    builder_.call(from, rules_.string(), to);
  else
    rules_.quoted(from, *automaton, counted.has_value(), to, counted ? &*counted : nullptr);
}

// --- numbers ----------------------------------------------------------------------------------

NumberLimits SchemaCompiler::number_limits(const Parts& parts) const {
  NumberLimits limits;
  for (const Part& part : parts) {
    const auto bound = [&](const char* keyword, bool exclusive, bool least) {
      const json::Value* value = find(part, keyword);
      if (!value || value->is_bool()) return;
      if (!value->is_number()) refuse(part, fmt::format("{} must be a number", keyword));
      try {
        (least ? limits.least : limits.most)
            .push_back({Decimal::parse(number_text(*value)), exclusive});
      } catch (const Error& error) {
        refuse(part, fmt::format("{}: {}", keyword, error.what()));
      }
    };
    // Draft 4 had true there, which is about the other keyword.
    const auto draft_4 = [&](const char* keyword) {
      const json::Value* value = find(part, keyword);
      return value && value->is_bool() && value->as_bool();
    };
    bound("minimum", draft_4("exclusiveMinimum"), true);
    bound("exclusiveMinimum", true, true);
    bound("maximum", draft_4("exclusiveMaximum"), false);
    bound("exclusiveMaximum", true, false);
    const json::Value* multiple = find(part, "multipleOf");
    if (!multiple) continue;
    if (!multiple->is_number() || multiple->as_double() <= 0)
      refuse(part, "multipleOf must be a number above 0");
    const double unit = multiple->as_double();
    if (std::floor(unit) == unit && unit <= 1e9) {
      const auto other = static_cast<int32_t>(unit);
      if (limits.multiple_of) {
        const int64_t both =
            int64_t{*limits.multiple_of} / std::gcd(*limits.multiple_of, other) * other;
        limits.multiple_of = static_cast<int32_t>(std::min<int64_t>(both, 1'000'000'000));
      } else {
        limits.multiple_of = other;
      }
      continue;
    }
    int32_t digits = 0;
    for (double power = 1; digits <= 15 && unit != 1 / power; ++digits) power *= 10;
    if (digits > 15)
      refuse(part, "multipleOf can be enforced for whole numbers and for powers of ten");
    limits.fraction_digits = std::min(limits.fraction_digits.value_or(digits), digits);
  }
  return limits;
}

void SchemaCompiler::compile_number(int32_t rule, const Parts& parts, bool whole) {
  const int32_t from = builder_.rule_start(rule);
  const int32_t to = builder_.rule_end(rule);
  const NumberLimits limits = number_limits(parts);
  if (limits.free()) return builder_.call(from, whole ? rules_.integer() : rules_.number(), to);
  try {
    const TextAutomaton texts = whole ? integer_automaton(limits) : number_automaton(limits);
    add_text(builder_, from, texts, {.form = TextForm::plain}, to);
  } catch (const Error& error) {
    refuse(parts[0], error.what());
  }
}

}  // namespace qnext::grammar
