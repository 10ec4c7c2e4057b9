// Expressions.
#include "base/error.h"
#include "text/template_evaluator.h"
#include "text/template_lookup.h"
#include "text/template_objects.h"
#include "text/template_operations.h"

namespace qnext::jinja {

using Kind = Expression::Kind;

Value call_value(Runtime& runtime, const Value& callee, Arguments& arguments) {
  if (callee.is_undefined()) fail_undefined(callee);
  if (!callee.is_object() || !callee.object().callable())
    fail("a '{}' cannot be called", callee.type_name());
  const Value::ObjectPointer held = callee.object_pointer();  // its scope may let go of it
  return held->call(runtime, arguments);
}

Value Evaluator::evaluate(const Expression& expression, const ScopePointer& scope) {
  runtime_.step();
  runtime_.check_stack();
  switch (expression.kind) {
    case Kind::constant:
      return expression.constant;
    case Kind::name:
      return name(expression, scope);
    case Kind::list:
    case Kind::tuple:
      return sequence(expression, scope);
    case Kind::dict:
      return dict(expression, scope);
    case Kind::attribute:
      return attribute(expression, scope);
    case Kind::item:
      return item(expression, scope);
    case Kind::slice:
      return slice(expression, scope);
    case Kind::call:
      return call(expression, scope);
    case Kind::filter:
      return filter(expression, scope);
    case Kind::test:
      return test(expression, scope);
    case Kind::negate:
    case Kind::positive:
    case Kind::logical_not:
      return unary(expression, scope);
    case Kind::logical_and:
    case Kind::logical_or:
      return logical(expression, scope);
    case Kind::arithmetic:
      return binary(expression, scope);
    case Kind::concatenate:
      return concatenate(expression, scope);
    case Kind::compare:
      return compare(expression, scope);
    case Kind::conditional:
      return conditional(expression, scope);
    case Kind::namespace_attribute:
      break;
  }
  QNEXT_CHECK(false, "a target is evaluated");
  return {};
}

Value Evaluator::name(const Expression& expression, const ScopePointer& scope) {
  if (const Value* value = scope->find(expression.text)) return *value;
  runtime_.allocate(expression.text.size());
  return Value::undefined(fmt::format("'{}' is undefined", expression.text));
}

Value Evaluator::sequence(const Expression& expression, const ScopePointer& scope) {
  std::vector<Value> items;
  items.reserve(expression.children.size());
  for (const auto& child_expression : expression.children)
    items.push_back(evaluate(*child_expression, scope));
  return make_sequence(
      runtime_, std::move(items),
      expression.kind == Kind::list ? Sequence::Kind::list : Sequence::Kind::tuple);
}

Value Evaluator::dict(const Expression& expression, const ScopePointer& scope) {
  Dict out;
  for (size_t i = 0; i < expression.children.size(); i += 2) {
    Value key = evaluate(*expression.children[i], scope);
    Value value = evaluate(*expression.children[i + 1], scope);
    runtime_.line = expression.line;
    out.set(runtime_, std::move(key), std::move(value));
  }
  return make_dict(runtime_, std::move(out));
}

Value Evaluator::attribute(const Expression& expression, const ScopePointer& scope) {
  const Value object = evaluate(*expression.children[0], scope);
  runtime_.line = expression.line;
  return get_attribute(runtime_, object, expression.text);
}

Value Evaluator::item(const Expression& expression, const ScopePointer& scope) {
  const Value object = evaluate(*expression.children[0], scope);
  const Value key = evaluate(*expression.children[1], scope);
  runtime_.line = expression.line;
  return get_item(runtime_, object, key);
}

Value Evaluator::slice(const Expression& expression, const ScopePointer& scope) {
  const auto bound = [&](size_t i) {
    return expression.children[i] ? evaluate(*expression.children[i], scope) : Value();
  };
  const Value object = evaluate(*expression.children[0], scope);
  const Value start = bound(1), stop = bound(2), step = bound(3);
  runtime_.line = expression.line;
  return get_slice(runtime_, object, start, stop, step);
}

Arguments Evaluator::arguments(const Expression::Call& call, const ScopePointer& scope) {
  Arguments out;
  for (const auto& argument : call.positional) out.positional.push_back(evaluate(*argument, scope));
  for (const auto& [keyword, argument] : call.keywords)
    out.keywords.emplace_back(keyword, evaluate(*argument, scope));
  if (call.more_positional)
    for (Value& value : to_vector(runtime_, evaluate(*call.more_positional, scope)))
      out.positional.push_back(std::move(value));
  if (!call.more_keywords) return out;
  const Value more = evaluate(*call.more_keywords, scope);
  if (!more.is_dict()) fail("what follows ** in a call must be a dict");
  for (const auto& [key, value] : more.dict().entries) {
    if (!key.is_string()) fail("the keys of what follows ** must be strings");
    for (const auto& [known, unused] : out.keywords)
      if (known == key.text()) fail("the argument '{}' is given twice", known);
    runtime_.step(static_cast<int64_t>(out.keywords.size()));
    out.keywords.emplace_back(key.text(), value);
  }
  return out;
}

Value Evaluator::call(const Expression& expression, const ScopePointer& scope) {
  const Value callee = evaluate(*expression.children[0], scope);
  Arguments passed = arguments(*expression.call, scope);
  runtime_.line = expression.line;
  return call_value(runtime_, callee, passed);
}

Value Evaluator::filter(const Expression& expression, const ScopePointer& scope) {
  const auto& operand = expression.children[0];
  const Value input = operand ? evaluate(*operand, scope) : block_text_;
  const Arguments passed = arguments(*expression.call, scope);
  runtime_.line = expression.line;
  if (!expression.filter) fail("there is no filter named '{}'", expression.text);
  return expression.filter(runtime_, input, passed);
}

Value Evaluator::test(const Expression& expression, const ScopePointer& scope) {
  const Value input = evaluate(*expression.children[0], scope);
  const Arguments passed = arguments(*expression.call, scope);
  runtime_.line = expression.line;
  if (!expression.test) fail("there is no test named '{}'", expression.text);
  return expression.test(runtime_, input, passed);
}

Value Evaluator::unary(const Expression& expression, const ScopePointer& scope) {
  const Value operand = evaluate(*expression.children[0], scope);
  runtime_.line = expression.line;
  if (expression.kind == Kind::logical_not) return !truth(runtime_, operand);
  return expression.kind == Kind::negate ? negate(operand) : positive(operand);
}

Value Evaluator::logical(const Expression& expression, const ScopePointer& scope) {
  Value left = evaluate(*expression.children[0], scope);
  if (truth(runtime_, left) == (expression.kind == Kind::logical_or)) return left;
  return evaluate(*expression.children[1], scope);
}

Value Evaluator::binary(const Expression& expression, const ScopePointer& scope) {
  const Value left = evaluate(*expression.children[0], scope);
  const Value right = evaluate(*expression.children[1], scope);
  runtime_.line = expression.line;
  return arithmetic(runtime_, expression.operation, left, right);
}

Value Evaluator::concatenate(const Expression& expression, const ScopePointer& scope) {
  std::string out;
  for (const auto& part : expression.children) append_text(runtime_, out, evaluate(*part, scope));
  return make_string(runtime_, std::move(out));
}

namespace {

bool compare_values(Runtime& runtime, Comparison comparison, const Value& left,
                    const Value& right) {
  switch (comparison) {
    case Comparison::equal:
      return equal(runtime, left, right);
    case Comparison::not_equal:
      return !equal(runtime, left, right);
    case Comparison::less:
      return less(runtime, left, right);
    case Comparison::less_equal:
      return less_equal(runtime, left, right);
    case Comparison::greater:
      return less(runtime, right, left);
    case Comparison::greater_equal:
      return less_equal(runtime, right, left);
    case Comparison::in:
      return contains(runtime, right, left);
    case Comparison::not_in:
      return !contains(runtime, right, left);
  }
  return false;
}

}  // namespace

Value Evaluator::compare(const Expression& expression, const ScopePointer& scope) {
  Value left = evaluate(*expression.children[0], scope);
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    Value right = evaluate(*expression.children[i + 1], scope);
    runtime_.line = expression.line;
    if (!compare_values(runtime_, expression.comparisons[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::conditional(const Expression& expression, const ScopePointer& scope) {
  if (truth(runtime_, evaluate(*expression.children[1], scope)))
    return evaluate(*expression.children[0], scope);
  if (expression.children[2]) return evaluate(*expression.children[2], scope);
  return Value::undefined(
      fmt::format("the condition on line {} is false and has no else", expression.line));
}

}  // namespace qnext::jinja
