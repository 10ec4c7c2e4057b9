// From tokens to the syntax tree.
#pragma once

#include <string_view>

#include "text/template_lexer.h"
#include "text/template_syntax.h"

namespace qnext::jinja {

// Throws Error("chat template, line N: ...") for a syntax error, an unknown filter or test, and
// for what these templates cannot have (include, extends, ...).
Body parse_template(std::string_view source);

// Reads expressions; the statement parser builds on it.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens);

 protected:
  const Token& current() const { return tokens_[position_]; }
  const Token& ahead() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  Token take();
  bool at_symbol(std::string_view symbol) const;
  bool at_name(std::string_view name) const;
  bool skip_symbol(std::string_view symbol);
  bool skip_name(std::string_view name);
  void expect_symbol(std::string_view symbol);
  void expect_name(std::string_view name);
  std::string take_name();
  void expect(Token::Kind kind, std::string_view what);
  [[noreturn]] void fail_here(const std::string& problem) const;
  [[noreturn]] void fail_unexpected() const;

  ExpressionPointer expression() { return conditional(); }
  ExpressionPointer disjunction();  // an expression without a bare "a if b else c"
  // Expressions with commas between them. `stop` is a name that ends them.
  ExpressionPointer tuple(bool with_conditional, std::string_view stop = {});
  ExpressionPointer filters(ExpressionPointer input, bool inline_first);
  // What may stand on the left of "=": a name, ns.attribute, or a tuple of them.
  ExpressionPointer target(bool with_namespace);
  void check_nesting() const;

  ExpressionPointer make(Expression::Kind kind, int line) const;
  // Appends a child and accounts for its depth.
  void adopt(Expression& parent, ExpressionPointer child) const;

  // Unknown filters and tests so far. What stands under a condition forgets its own: there they
  // fail only when reached.
  std::vector<std::pair<int, std::string>> unknown_;
  void refuse_unknown() const;
  // Called for every name that is read, so that macros and loops know what they must provide.
  virtual void mention(const std::string&) {}
  virtual ~ExpressionParser() = default;

 private:
  ExpressionPointer conditional();
  ExpressionPointer conjunction();
  ExpressionPointer negation();
  ExpressionPointer comparison();
  ExpressionPointer sum();
  ExpressionPointer concatenation();
  ExpressionPointer product();
  ExpressionPointer power();
  ExpressionPointer unary(bool with_filters);
  ExpressionPointer primary();
  ExpressionPointer name_or_constant();
  ExpressionPointer list();
  ExpressionPointer dict();
  ExpressionPointer postfix(ExpressionPointer node);
  ExpressionPointer filters_and_tests(ExpressionPointer node);
  ExpressionPointer dot(ExpressionPointer node);
  ExpressionPointer subscript(ExpressionPointer node);
  ExpressionPointer slice_or_index(ExpressionPointer node);
  ExpressionPointer call(ExpressionPointer node);
  ExpressionPointer test(ExpressionPointer node);
  std::unique_ptr<Expression::Call> arguments();
  ExpressionPointer single_target(bool with_namespace);
  ExpressionPointer binary(Expression::Kind kind, int line, ExpressionPointer left,
                           ExpressionPointer right) const;
  bool at_tuple_end(std::string_view stop) const;

  std::vector<Token> tokens_;
  size_t position_ = 0;
  const char* stack_base_;
};

}  // namespace qnext::jinja
