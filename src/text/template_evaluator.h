// Runs a syntax tree.
#pragma once

#include <memory>
#include <string>

#include "text/template_runtime.h"
#include "text/template_syntax.h"

namespace qnext::jinja {

// Calls a function, macro or method; throws Error where the value is none.
Value call_value(Runtime& runtime, const Value& callee, Arguments& arguments);

// range, dict, namespace, cycler, joiner, raise_exception, strftime_now.
void add_globals(Runtime& runtime, Scope& scope);

class Evaluator {
 public:
  explicit Evaluator(Runtime& runtime) : runtime_(runtime) {}

  using ScopePointer = std::shared_ptr<Scope>;
  enum class Flow { normal, broken, continued };

  // Appends what the statements print to `out`.
  Flow execute(const Body& body, const ScopePointer& scope, std::string& out);
  Value evaluate(const Expression& expression, const ScopePointer& scope);
  void assign(const Expression& target, Value value, const ScopePointer& scope);
  ScopePointer child(const ScopePointer& parent);
  std::string run_loop(const Statement& statement, const Value& iterable, const ScopePointer& scope,
                       int depth);
  Runtime& runtime() { return runtime_; }

 private:
  Flow execute(const Statement& statement, const ScopePointer& scope, std::string& out);
  void append(std::string& out, std::string_view text);
  Flow condition(const Statement& statement, const ScopePointer& scope, std::string& out);
  Flow loop(const Statement& statement, const Value& iterable, const ScopePointer& scope, int depth,
            std::string& out);
  Flow assign_block(const Statement& statement, const ScopePointer& scope);
  Flow filter_block(const Statement& statement, const ScopePointer& scope, std::string& out);
  Flow with(const Statement& statement, const ScopePointer& scope, std::string& out);
  void call_block(const Statement& statement, const ScopePointer& scope, std::string& out);
  Value make_macro(const Statement& statement, const ScopePointer& scope, std::string name);
  Value filtered_block(const Expression& filter, Value text, const ScopePointer& scope);

  Value name(const Expression& expression, const ScopePointer& scope);
  Value sequence(const Expression& expression, const ScopePointer& scope);
  Value dict(const Expression& expression, const ScopePointer& scope);
  Value attribute(const Expression& expression, const ScopePointer& scope);
  Value item(const Expression& expression, const ScopePointer& scope);
  Value slice(const Expression& expression, const ScopePointer& scope);
  Value call(const Expression& expression, const ScopePointer& scope);
  Value filter(const Expression& expression, const ScopePointer& scope);
  Value test(const Expression& expression, const ScopePointer& scope);
  Value unary(const Expression& expression, const ScopePointer& scope);
  Value logical(const Expression& expression, const ScopePointer& scope);
  Value binary(const Expression& expression, const ScopePointer& scope);
  Value concatenate(const Expression& expression, const ScopePointer& scope);
  Value compare(const Expression& expression, const ScopePointer& scope);
  Value conditional(const Expression& expression, const ScopePointer& scope);
  Arguments arguments(const Expression::Call& call, const ScopePointer& scope);

  Runtime& runtime_;
  Value block_text_;  // the input of a filter block's first filter
};

}  // namespace qnext::jinja
