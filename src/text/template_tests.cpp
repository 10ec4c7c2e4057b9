// Jinja's tests: what may stand behind `is`.
#include <map>

#include "base/error.h"
#include "text/template_arguments.h"
#include "text/template_arithmetic.h"
#include "text/template_filters.h"
#include "text/template_lookup.h"
#include "text/template_objects.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"

namespace qnext::jinja {

namespace {

using Predicate = bool (*)(Runtime&, const Value&);
using Relation = bool (*)(Runtime&, const Value&, const Value&);

template <Predicate predicate>
bool unary(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("this test", arguments, {});
  return predicate(runtime, input);
}

template <Relation relation>
bool binary(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("this test", arguments, {"other"}, 1);
  return relation(runtime, input, bound[0]);
}

bool divisible(Runtime& runtime, const Value& value, const Value& divisor) {
  return equal(runtime, arithmetic(runtime, Operator::modulo, value, divisor), int64_t{0});
}

bool odd(Runtime& runtime, const Value& value) {
  return equal(runtime, arithmetic(runtime, Operator::modulo, value, int64_t{2}), int64_t{1});
}

bool even(Runtime& runtime, const Value& value) {
  return divisible(runtime, value, int64_t{2});
}

// islower() and isupper() of the value's text.
template <bool upper>
bool has_case(Runtime& runtime, const Value& value) {
  const Value text = make_string(runtime, to_text(runtime, value));
  Arguments none;
  const Value method = *find_method(runtime, text, upper ? "isupper" : "islower");
  return truth(runtime, method.object().call(runtime, none));
}

bool is_callable(Runtime&, const Value& value) {
  // Undefined has a __call__, which raises.
  return value.is_undefined() || (value.is_object() && value.object().callable());
}

bool is_sequence_like(Runtime&, const Value& value) {
  return value.is_string() || value.is_sequence() || value.is_dict() || value.as<Range>() ||
         value.is_undefined();
}

bool is_mapping(Runtime&, const Value& value) {
  return value.is_dict();
}
bool is_true(Runtime&, const Value& value) {
  return value.is_bool() && value.boolean();
}
bool is_false(Runtime&, const Value& value) {
  return value.is_bool() && !value.boolean();
}
bool is_defined(Runtime&, const Value& value) {
  return !value.is_undefined();
}
bool is_undefined(Runtime&, const Value& value) {
  return value.is_undefined();
}
bool is_none(Runtime&, const Value& value) {
  return value.is_none();
}
bool is_boolean(Runtime&, const Value& value) {
  return value.is_bool();
}
bool is_integer(Runtime&, const Value& value) {
  return value.is_integer();
}
bool is_float(Runtime&, const Value& value) {
  return value.is_float();
}
bool is_number(Runtime&, const Value& value) {
  return value.is_number();
}
bool is_string(Runtime&, const Value& value) {
  return value.is_string();
}
bool is_escaped(Runtime&, const Value& value) {
  return value.is_string() && value.string().safe;
}
bool can_iterate(Runtime&, const Value& value) {
  return is_iterable(value);
}

bool is_filter_name(Runtime&, const Value& value) {
  return value.is_string() && find_filter(value.text());
}
bool is_test_name(Runtime&, const Value& value) {
  return value.is_string() && find_test(value.text());
}

bool same(Runtime&, const Value& a, const Value& b) {
  return a.is_same(b);
}
bool not_equal(Runtime& runtime, const Value& a, const Value& b) {
  return !equal(runtime, a, b);
}
bool greater(Runtime& runtime, const Value& a, const Value& b) {
  return less(runtime, b, a);
}
bool greater_equal(Runtime& runtime, const Value& a, const Value& b) {
  return less_equal(runtime, b, a);
}
bool inside(Runtime& runtime, const Value& a, const Value& b) {
  return contains(runtime, b, a);
}

}  // namespace

TestFunction find_test(std::string_view name) {
  static const std::map<std::string_view, TestFunction> table{{"odd", unary<odd>},
                                                              {"even", unary<even>},
                                                              {"divisibleby", binary<divisible>},
                                                              {"defined", unary<is_defined>},
                                                              {"undefined", unary<is_undefined>},
                                                              {"filter", unary<is_filter_name>},
                                                              {"test", unary<is_test_name>},
                                                              {"none", unary<is_none>},
                                                              {"boolean", unary<is_boolean>},
                                                              {"false", unary<is_false>},
                                                              {"true", unary<is_true>},
                                                              {"integer", unary<is_integer>},
                                                              {"float", unary<is_float>},
                                                              {"lower", unary<has_case<false>>},
                                                              {"upper", unary<has_case<true>>},
                                                              {"string", unary<is_string>},
                                                              {"mapping", unary<is_mapping>},
                                                              {"number", unary<is_number>},
                                                              {"sequence", unary<is_sequence_like>},
                                                              {"iterable", unary<can_iterate>},
                                                              {"callable", unary<is_callable>},
                                                              {"sameas", binary<same>},
                                                              {"escaped", unary<is_escaped>},
                                                              {"in", binary<inside>},
                                                              {"==", binary<equal>},
                                                              {"eq", binary<equal>},
                                                              {"equalto", binary<equal>},
                                                              {"!=", binary<not_equal>},
                                                              {"ne", binary<not_equal>},
                                                              {">", binary<greater>},
                                                              {"gt", binary<greater>},
                                                              {"greaterthan", binary<greater>},
                                                              {">=", binary<greater_equal>},
                                                              {"ge", binary<greater_equal>},
                                                              {"<", binary<less>},
                                                              {"lt", binary<less>},
                                                              {"lessthan", binary<less>},
                                                              {"<=", binary<less_equal>},
                                                              {"le", binary<less_equal>}};
  const auto it = table.find(name);
  return it == table.end() ? nullptr : it->second;
}

TestFunction require_test(std::string_view name) {
  const auto test = find_test(name);
  if (!test) fail("there is no test named '{}'", name);
  return test;
}

}  // namespace qnext::jinja
