// Statements.
#include "text/template_evaluator.h"

#include "base/error.h"
#include "text/template_callables.h"
#include "text/template_objects.h"
#include "text/template_operations.h"

namespace qnext::jinja {

namespace {

// The items that pass the condition of a for loop, found one at a time as the loop goes on.
class FilteredCursor : public Cursor {
 public:
  FilteredCursor(Evaluator& evaluator, const Statement& statement, Evaluator::ScopePointer scope,
                 std::unique_ptr<Cursor> inner)
      : evaluator_(evaluator),
        statement_(statement),
        scope_(std::move(scope)),
        inner_(std::move(inner)) {}

  std::optional<Value> next(Runtime& runtime) override {
    while (auto item = inner_->next(runtime)) {
      runtime.step();
      const auto scope = evaluator_.child(scope_);
      scope->set(runtime, "loop",
                 Value::undefined("the condition of a for loop cannot see the loop"));
      evaluator_.assign(*statement_.target, *item, scope);
      if (truth(runtime, evaluator_.evaluate(*statement_.expressions[1], scope))) return item;
    }
    return std::nullopt;
  }

 private:
  Evaluator& evaluator_;
  const Statement& statement_;
  Evaluator::ScopePointer scope_;
  std::unique_ptr<Cursor> inner_;
};

class LoopEnd {
 public:
  explicit LoopEnd(Loop& loop) : loop_(loop) {}
  ~LoopEnd() { loop_.finish(); }
  LoopEnd(const LoopEnd&) = delete;
  LoopEnd& operator=(const LoopEnd&) = delete;

 private:
  Loop& loop_;
};

}  // namespace

Evaluator::ScopePointer Evaluator::child(const ScopePointer& parent) {
  runtime_.step();
  auto scope = std::make_shared<Scope>();
  scope->parent = parent;
  return scope;
}

void Evaluator::append(std::string& out, std::string_view text) {
  runtime_.allocate(text.size());
  if (static_cast<int64_t>(out.size() + text.size()) > runtime_.limits().output_bytes)
    fail("the template prints more than {} MiB", runtime_.limits().output_bytes >> 20);
  out += text;
}

Evaluator::Flow Evaluator::execute(const Body& body, const ScopePointer& scope, std::string& out) {
  runtime_.check_stack();
  for (const Statement& statement : body)
    if (const Flow flow = execute(statement, scope, out); flow != Flow::normal) return flow;
  return Flow::normal;
}

Evaluator::Flow Evaluator::execute(const Statement& statement, const ScopePointer& scope,
                                   std::string& out) {
  runtime_.step();
  runtime_.line = statement.line;
  switch (statement.kind) {
    case Statement::Kind::text:
      append(out, statement.text);
      break;
    case Statement::Kind::output:
      for (const auto& expression : statement.expressions) {
        const Value value = evaluate(*expression, scope);
        append(out, value.is_string() ? value.text() : to_text(runtime_, value));
      }
      break;
    case Statement::Kind::condition:
      return condition(statement, scope, out);
    case Statement::Kind::loop:
      return loop(statement, evaluate(*statement.expressions[0], scope), scope, 1, out);
    case Statement::Kind::assign:
      assign(*statement.target, evaluate(*statement.expressions[0], scope), scope);
      break;
    case Statement::Kind::assign_block:
      return assign_block(statement, scope);
    case Statement::Kind::macro:
      scope->set(runtime_, statement.text, make_macro(statement, scope, statement.text));
      break;
    case Statement::Kind::call_block:
      call_block(statement, scope, out);
      break;
    case Statement::Kind::filter_block:
      return filter_block(statement, scope, out);
    case Statement::Kind::with:
      return with(statement, scope, out);
    case Statement::Kind::scope:
      return execute(statement.bodies[0], child(scope), out);
    case Statement::Kind::break_loop:
      return Flow::broken;
    case Statement::Kind::continue_loop:
      return Flow::continued;
  }
  return Flow::normal;
}

Evaluator::Flow Evaluator::condition(const Statement& statement, const ScopePointer& scope,
                                     std::string& out) {
  const size_t conditions = statement.expressions.size();
  for (size_t i = 0; i < conditions; ++i)
    if (truth(runtime_, evaluate(*statement.expressions[i], scope)))
      return execute(statement.bodies[i], scope, out);
  if (statement.bodies.size() == conditions) return Flow::normal;
  return execute(statement.bodies[conditions], scope, out);
}

std::string Evaluator::run_loop(const Statement& statement, const Value& iterable,
                                const ScopePointer& scope, int depth) {
  std::string out;
  loop(statement, iterable, scope, depth, out);
  return out;
}

Evaluator::Flow Evaluator::loop(const Statement& statement, const Value& iterable,
                                const ScopePointer& scope, int depth, std::string& out) {
  const bool filtered = statement.expressions.size() > 1;
  auto cursor = iterate(runtime_, iterable);
  if (filtered)
    cursor = std::make_unique<FilteredCursor>(*this, statement, scope, std::move(cursor));
  const auto size = filtered ? std::nullopt : length_if_sized(runtime_, iterable);
  const auto variable = std::make_shared<Loop>(*this, statement, scope, std::move(cursor), size,
                                               iterable.depth() + 1, depth);
  if (variable->depth() > maximum_value_depth) fail("loops nest too deeply in values");
  const LoopEnd end(*variable);
  // As in Jinja, `else` runs unless some round came to its end: break and continue do not count.
  bool completed = false;
  while (auto item = variable->advance()) {
    const auto inner = child(scope);
    if (statement.uses_loop || statement.recursive) inner->set(runtime_, "loop", variable);
    assign(*statement.target, std::move(*item), inner);
    const Flow flow = execute(statement.bodies[0], inner, out);
    if (flow == Flow::broken) break;
    completed = completed || flow == Flow::normal;
  }
  if (completed || statement.bodies.size() < 2) return Flow::normal;
  return execute(statement.bodies[1], child(scope), out);
}

void Evaluator::assign(const Expression& target, Value value, const ScopePointer& scope) {
  if (target.kind == Expression::Kind::name) {
    scope->set(runtime_, target.text, std::move(value));
  } else if (target.kind == Expression::Kind::namespace_attribute) {
    const Value* space = scope->find(target.text);
    auto* object = space ? space->as<Namespace>() : nullptr;
    if (!object)
      fail("'{}' is no namespace: its attribute '{}' cannot be set", target.text, target.attribute);
    object->set(runtime_, target.attribute, std::move(value));
  } else {
    const auto items = to_vector(runtime_, value);
    if (items.size() != target.children.size())
      fail("{} values cannot be assigned to {} names", items.size(), target.children.size());
    for (size_t i = 0; i < items.size(); ++i) assign(*target.children[i], items[i], scope);
  }
}

Value Evaluator::filtered_block(const Expression& filter_chain, Value text,
                                const ScopePointer& scope) {
  Value outer = std::exchange(block_text_, std::move(text));
  Value result = evaluate(filter_chain, scope);
  block_text_ = std::move(outer);
  return result;
}

Evaluator::Flow Evaluator::assign_block(const Statement& statement, const ScopePointer& scope) {
  std::string text;
  const auto inner = child(scope);
  if (const Flow flow = execute(statement.bodies[0], inner, text); flow != Flow::normal)
    return flow;
  Value value = make_string(runtime_, std::move(text));
  if (!statement.expressions.empty())
    value = filtered_block(*statement.expressions[0], std::move(value), inner);
  assign(*statement.target, std::move(value), scope);
  return Flow::normal;
}

Evaluator::Flow Evaluator::filter_block(const Statement& statement, const ScopePointer& scope,
                                        std::string& out) {
  std::string text;
  const auto inner = child(scope);
  if (const Flow flow = execute(statement.bodies[0], inner, text); flow != Flow::normal)
    return flow;
  const Value value =
      filtered_block(*statement.expressions[0], make_string(runtime_, std::move(text)), inner);
  append(out, to_text(runtime_, value));
  return Flow::normal;
}

Evaluator::Flow Evaluator::with(const Statement& statement, const ScopePointer& scope,
                                std::string& out) {
  const auto inner = child(scope);
  for (size_t i = 0; i < statement.targets.size(); ++i)
    assign(*statement.targets[i], evaluate(*statement.expressions[i], scope), inner);
  return execute(statement.bodies[0], inner, out);
}

Value Evaluator::make_macro(const Statement& statement, const ScopePointer& scope,
                            std::string name_of_macro) {
  runtime_.keep(scope);
  runtime_.allocate(sizeof(Macro));
  return std::make_shared<Macro>(*this, statement, std::move(name_of_macro), scope);
}

void Evaluator::call_block(const Statement& statement, const ScopePointer& scope,
                           std::string& out) {
  const Expression& expression = *statement.expressions[0];
  const Value callee = evaluate(*expression.children[0], scope);
  Arguments passed = arguments(*expression.call, scope);
  passed.keywords.emplace_back("caller", make_macro(statement, scope, "caller"));
  runtime_.line = statement.line;
  append(out, to_text(runtime_, call_value(runtime_, callee, passed)));
}

}  // namespace qnext::jinja
