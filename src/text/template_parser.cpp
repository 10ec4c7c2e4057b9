#include "text/template_parser.h"

#include <algorithm>

#include "base/error.h"
#include "text/template_runtime.h"

namespace qnext::jinja {

namespace {

constexpr int maximum_tree_depth = 1000;
constexpr size_t maximum_stack_bytes = size_t{1} << 20;
using Kind = Expression::Kind;

void deepen(Expression& parent, const ExpressionPointer& child, int line) {
  if (!child) return;
  parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > maximum_tree_depth) fail_at(line, "an expression nests too deeply");
}

std::string describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::data:
      return "text";
    case Token::Kind::variable_begin:
      return "'{{'";
    case Token::Kind::variable_end:
      return "'}}'";
    case Token::Kind::block_begin:
      return "'{%'";
    case Token::Kind::block_end:
      return "'%}'";
    case Token::Kind::end:
      return "the end of the template";
    case Token::Kind::integer:
    case Token::Kind::floating:
      return "a number";
    case Token::Kind::string:
      return "a string";
    default:
      return "'" + token.text + "'";
  }
}

}  // namespace

ExpressionParser::ExpressionParser(std::vector<Token> tokens)
    : tokens_(std::move(tokens)),
      stack_base_(static_cast<const char*>(__builtin_frame_address(0))) {}

void ExpressionParser::check_nesting() const {
  if (stack_used_since(stack_base_) > maximum_stack_bytes)
    fail_here("the template nests too deeply");
}

Token ExpressionParser::take() {
  Token token = current();
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool ExpressionParser::at_symbol(std::string_view symbol) const {
  return current().kind == Token::Kind::symbol && current().text == symbol;
}

bool ExpressionParser::at_name(std::string_view name) const {
  return current().kind == Token::Kind::name && current().text == name;
}

bool ExpressionParser::skip_symbol(std::string_view symbol) {
  if (!at_symbol(symbol)) return false;
  take();
  return true;
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  take();
  return true;
}

void ExpressionParser::expect_symbol(std::string_view symbol) {
  if (!skip_symbol(symbol))
    fail_here(fmt::format("expected '{}', found {}", symbol, describe(current())));
}

void ExpressionParser::expect_name(std::string_view name) {
  if (!skip_name(name))
    fail_here(fmt::format("expected '{}', found {}", name, describe(current())));
}

std::string ExpressionParser::take_name() {
  if (current().kind != Token::Kind::name)
    fail_here(fmt::format("expected a name, found {}", describe(current())));
  return take().text;
}

void ExpressionParser::expect(Token::Kind kind, std::string_view what) {
  if (current().kind != kind)
    fail_here(fmt::format("expected {}, found {}", what, describe(current())));
  take();
}

void ExpressionParser::refuse_unknown() const {
  if (!unknown_.empty()) fail_at(unknown_[0].first, unknown_[0].second);
}

void ExpressionParser::fail_here(const std::string& problem) const {
  fail_at(current().line, problem);
}

void ExpressionParser::fail_unexpected() const {
  fail_here(fmt::format("unexpected {}", describe(current())));
}

ExpressionPointer ExpressionParser::make(Kind kind, int line) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

void ExpressionParser::adopt(Expression& parent, ExpressionPointer child) const {
  deepen(parent, child, current().line);
  parent.children.push_back(std::move(child));
}

ExpressionPointer ExpressionParser::binary(Kind kind, int line, ExpressionPointer left,
                                           ExpressionPointer right) const {
  auto node = make(kind, line);
  adopt(*node, std::move(left));
  adopt(*node, std::move(right));
  return node;
}

ExpressionPointer ExpressionParser::conditional() {
  check_nesting();
  const int line = current().line;
  const size_t unknown_before = unknown_.size();
  auto value = disjunction();
  if (!at_name("if")) return value;
  while (skip_name("if")) {
    auto node = make(Kind::conditional, line);
    adopt(*node, std::move(value));
    adopt(*node, disjunction());
    adopt(*node, skip_name("else") ? conditional() : nullptr);
    value = std::move(node);
  }
  unknown_.resize(unknown_before);
  return value;
}

ExpressionPointer ExpressionParser::disjunction() {
  const int line = current().line;
  auto left = conjunction();
  while (skip_name("or")) left = binary(Kind::logical_or, line, std::move(left), conjunction());
  return left;
}

ExpressionPointer ExpressionParser::conjunction() {
  const int line = current().line;
  auto left = negation();
  while (skip_name("and")) left = binary(Kind::logical_and, line, std::move(left), negation());
  return left;
}

ExpressionPointer ExpressionParser::negation() {
  check_nesting();
  const int line = current().line;
  if (!skip_name("not")) return comparison();
  auto node = make(Kind::logical_not, line);
  adopt(*node, negation());
  return node;
}

ExpressionPointer ExpressionParser::comparison() {
  static constexpr std::pair<std::string_view, Comparison> symbols[] = {
      {"==", Comparison::equal},  {"!=", Comparison::not_equal},
      {"<", Comparison::less},    {"<=", Comparison::less_equal},
      {">", Comparison::greater}, {">=", Comparison::greater_equal}};
  const int line = current().line;
  auto first = sum();
  auto node = make(Kind::compare, line);
  const auto add = [&](Comparison comparison) {
    node->comparisons.push_back(comparison);
    adopt(*node, sum());
  };
  adopt(*node, std::move(first));
  for (;;) {
    const auto* symbol =
        std::find_if(std::begin(symbols), std::end(symbols),
                     [&](const auto& candidate) { return at_symbol(candidate.first); });
    if (symbol != std::end(symbols)) {
      take();
      add(symbol->second);
    } else if (skip_name("in")) {
      add(Comparison::in);
    } else if (at_name("not") && ahead().kind == Token::Kind::name && ahead().text == "in") {
      take();
      take();
      add(Comparison::not_in);
    } else {
      break;
    }
  }
  return node->comparisons.empty() ? std::move(node->children[0]) : std::move(node);
}

ExpressionPointer ExpressionParser::sum() {
  auto left = concatenation();
  while (at_symbol("+") || at_symbol("-")) {
    const Token token = take();
    left = binary(Kind::arithmetic, token.line, std::move(left), concatenation());
    left->operation = token.text == "+" ? Operator::add : Operator::subtract;
  }
  return left;
}

ExpressionPointer ExpressionParser::concatenation() {
  const int line = current().line;
  auto first = product();
  if (!at_symbol("~")) return first;
  auto node = make(Kind::concatenate, line);
  adopt(*node, std::move(first));
  while (skip_symbol("~")) adopt(*node, product());
  return node;
}

ExpressionPointer ExpressionParser::product() {
  auto left = power();
  while (at_symbol("*") || at_symbol("/") || at_symbol("//") || at_symbol("%")) {
    const Token token = take();
    left = binary(Kind::arithmetic, token.line, std::move(left), power());
    left->operation = token.text == "*"    ? Operator::multiply
                      : token.text == "/"  ? Operator::divide
                      : token.text == "//" ? Operator::floor_divide
                                           : Operator::modulo;
  }
  return left;
}

// Jinja reads a ** b ** c from the left, unlike Python, but prints it into Python without
// parentheses around -a: so -2 ** 2 is (-2) ** 2 here as there.
ExpressionPointer ExpressionParser::power() {
  auto left = unary(true);
  while (at_symbol("**")) {
    const Token token = take();
    left = binary(Kind::arithmetic, token.line, std::move(left), unary(true));
    left->operation = Operator::power;
  }
  return left;
}

ExpressionPointer ExpressionParser::unary(bool with_filters) {
  check_nesting();
  const int line = current().line;
  ExpressionPointer node;
  if (at_symbol("-") || at_symbol("+")) {
    node = make(take().text == "-" ? Kind::negate : Kind::positive, line);
    adopt(*node, unary(false));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filters ? filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPointer ExpressionParser::primary() {
  const int line = current().line;
  if (current().kind == Token::Kind::name) return name_or_constant();
  if (skip_symbol("(")) {
    if (skip_symbol(")")) return make(Kind::tuple, line);
    auto node = tuple(true);
    expect_symbol(")");
    return node;
  }
  if (at_symbol("[")) return list();
  if (at_symbol("{")) return dict();
  auto node = make(Kind::constant, line);
  if (current().kind == Token::Kind::string) {
    std::string text;
    while (current().kind == Token::Kind::string) text += take().text;
    node->constant = Value(std::move(text));
  } else if (current().kind == Token::Kind::integer) {
    node->constant = take().integer;
  } else if (current().kind == Token::Kind::floating) {
    node->constant = take().floating;
  } else {
    fail_unexpected();
  }
  return node;
}

ExpressionPointer ExpressionParser::name_or_constant() {
  const Token token = take();
  const std::string& name = token.text;
  auto node = make(Kind::constant, token.line);
  if (name == "true" || name == "True") {
    node->constant = true;
  } else if (name == "false" || name == "False") {
    node->constant = false;
  } else if (name != "none" && name != "None") {
    node->kind = Kind::name;
    node->text = name;
    mention(name);
  }
  return node;
}

bool ExpressionParser::at_tuple_end(std::string_view stop) const {
  const Token::Kind kind = current().kind;
  return kind == Token::Kind::variable_end || kind == Token::Kind::block_end || at_symbol(")") ||
         (!stop.empty() && at_name(stop));
}

ExpressionPointer ExpressionParser::tuple(bool with_conditional, std::string_view stop) {
  const int line = current().line;
  const auto one = [&] { return with_conditional ? expression() : disjunction(); };
  if (at_tuple_end(stop))
    fail_here(fmt::format("expected an expression, found {}", describe(current())));
  auto first = one();
  if (!at_symbol(",")) return first;
  auto node = make(Kind::tuple, line);
  adopt(*node, std::move(first));
  while (skip_symbol(",")) {
    if (at_tuple_end(stop)) break;
    adopt(*node, one());
  }
  return node;
}

ExpressionPointer ExpressionParser::list() {
  auto node = make(Kind::list, take().line);
  while (!at_symbol("]")) {
    if (!node->children.empty()) expect_symbol(",");
    if (at_symbol("]")) break;
    adopt(*node, expression());
  }
  take();
  return node;
}

ExpressionPointer ExpressionParser::dict() {
  auto node = make(Kind::dict, take().line);
  while (!at_symbol("}")) {
    if (!node->children.empty()) expect_symbol(",");
    if (at_symbol("}")) break;
    adopt(*node, expression());
    expect_symbol(":");
    adopt(*node, expression());
  }
  take();
  return node;
}

ExpressionPointer ExpressionParser::postfix(ExpressionPointer node) {
  for (;;) {
    if (at_symbol("."))
      node = dot(std::move(node));
    else if (at_symbol("["))
      node = subscript(std::move(node));
    else if (at_symbol("("))
      node = call(std::move(node));
    else
      return node;
  }
}

ExpressionPointer ExpressionParser::filters_and_tests(ExpressionPointer node) {
  for (;;) {
    if (at_symbol("|"))
      node = filters(std::move(node), false);
    else if (at_name("is"))
      node = test(std::move(node));
    else if (at_symbol("("))
      node = call(std::move(node));
    else
      return node;
  }
}

ExpressionPointer ExpressionParser::dot(ExpressionPointer object) {
  const int line = take().line;
  if (current().kind == Token::Kind::name) {
    auto node = make(Kind::attribute, line);
    node->text = take().text;
    adopt(*node, std::move(object));
    return node;
  }
  if (current().kind != Token::Kind::integer) fail_here("expected a name or a number after '.'");
  auto key = make(Kind::constant, line);
  key->constant = take().integer;
  return binary(Kind::item, line, std::move(object), std::move(key));
}

ExpressionPointer ExpressionParser::subscript(ExpressionPointer object) {
  const int line = take().line;
  if (at_symbol("]")) fail_here("expected an index before ']'");
  auto node = slice_or_index(std::move(object));
  if (at_symbol(",")) {
    if (node->kind == Kind::slice) fail_here("a slice of several dimensions is not supported");
    auto key = make(Kind::tuple, line);
    adopt(*key, std::move(node->children[1]));
    while (skip_symbol(",")) adopt(*key, expression());
    node->children[1] = nullptr;
    auto object_again = std::move(node->children[0]);
    node = binary(Kind::item, line, std::move(object_again), std::move(key));
  }
  expect_symbol("]");
  return node;
}

ExpressionPointer ExpressionParser::slice_or_index(ExpressionPointer object) {
  const int line = current().line;
  ExpressionPointer start;
  if (!at_symbol(":")) start = expression();
  if (!skip_symbol(":")) return binary(Kind::item, line, std::move(object), std::move(start));
  auto node = make(Kind::slice, line);
  adopt(*node, std::move(object));
  adopt(*node, std::move(start));
  const auto at_end = [&] { return at_symbol(":") || at_symbol("]") || at_symbol(","); };
  adopt(*node, at_end() ? nullptr : expression());
  const bool has_step = skip_symbol(":") && !at_end();
  adopt(*node, has_step ? expression() : nullptr);
  return node;
}

std::unique_ptr<Expression::Call> ExpressionParser::arguments() {
  auto call = std::make_unique<Expression::Call>();
  const int line = current().line;
  const auto ensure = [&](bool condition) {
    if (!condition) fail_at(line, "the arguments of a call are in the wrong order");
  };
  expect_symbol("(");
  for (bool first = true; !at_symbol(")"); first = false) {
    if (!first) expect_symbol(",");
    if (at_symbol(")")) break;
    if (skip_symbol("*")) {
      ensure(!call->more_positional && !call->more_keywords);
      call->more_positional = expression();
    } else if (skip_symbol("**")) {
      ensure(!call->more_keywords);
      call->more_keywords = expression();
    } else if (current().kind == Token::Kind::name && ahead().kind == Token::Kind::symbol &&
               ahead().text == "=") {
      ensure(!call->more_keywords);
      std::string name = take().text;
      take();
      for (const auto& [known, value] : call->keywords)
        if (known == name) fail_at(line, fmt::format("the argument '{}' is given twice", name));
      call->keywords.emplace_back(std::move(name), expression());
    } else {
      ensure(!call->more_positional && !call->more_keywords && call->keywords.empty());
      call->positional.push_back(expression());
    }
  }
  take();
  return call;
}

namespace {

void attach(Expression& node, std::unique_ptr<Expression::Call> call) {
  for (const auto& argument : call->positional) deepen(node, argument, node.line);
  for (const auto& [name, argument] : call->keywords) deepen(node, argument, node.line);
  deepen(node, call->more_positional, node.line);
  deepen(node, call->more_keywords, node.line);
  node.call = std::move(call);
}

}  // namespace

ExpressionPointer ExpressionParser::call(ExpressionPointer callee) {
  auto node = make(Kind::call, current().line);
  attach(*node, arguments());
  adopt(*node, std::move(callee));
  return node;
}

ExpressionPointer ExpressionParser::filters(ExpressionPointer input, bool inline_first) {
  for (; inline_first || at_symbol("|"); inline_first = false) {
    if (!inline_first) take();
    auto node = make(Kind::filter, current().line);
    node->text = take_name();
    while (skip_symbol(".")) node->text += "." + take_name();
    node->filter = find_filter(node->text);
    if (!node->filter)
      unknown_.push_back({node->line, fmt::format("there is no filter named '{}'", node->text)});
    attach(*node, at_symbol("(") ? arguments() : std::make_unique<Expression::Call>());
    adopt(*node, std::move(input));
    input = std::move(node);
  }
  return input;
}

ExpressionPointer ExpressionParser::test(ExpressionPointer input) {
  auto node = make(Kind::test, take().line);
  const bool negated = skip_name("not");
  node->text = take_name();
  while (skip_symbol(".")) node->text += "." + take_name();
  node->test = find_test(node->text);
  if (!node->test)
    unknown_.push_back({node->line, fmt::format("there is no test named '{}'", node->text)});
  auto call = std::make_unique<Expression::Call>();
  const Token::Kind kind = current().kind;
  if (at_symbol("(")) {
    call = arguments();
  } else if ((kind == Token::Kind::name || kind == Token::Kind::string ||
              kind == Token::Kind::integer || kind == Token::Kind::floating || at_symbol("[") ||
              at_symbol("{")) &&
             !at_name("else") && !at_name("or") && !at_name("and")) {
    if (at_name("is")) fail_here("tests cannot be chained with 'is'");
    call->positional.push_back(postfix(primary()));
  }
  attach(*node, std::move(call));
  adopt(*node, std::move(input));
  if (!negated) return node;
  auto negation = make(Kind::logical_not, node->line);
  adopt(*negation, std::move(node));
  return negation;
}

ExpressionPointer ExpressionParser::single_target(bool with_namespace) {
  check_nesting();
  const int line = current().line;
  if (skip_symbol("(")) {
    auto node = target(with_namespace);
    expect_symbol(")");
    return node;
  }
  auto node = make(Kind::name, line);
  node->text = take_name();
  static constexpr std::string_view constants[] = {"true", "false", "none",
                                                   "True", "False", "None"};
  if (std::find(std::begin(constants), std::end(constants), node->text) != std::end(constants))
    fail_at(line, fmt::format("'{}' cannot be assigned to", node->text));
  if (with_namespace && skip_symbol(".")) {
    node->kind = Kind::namespace_attribute;
    node->attribute = take_name();
    mention(node->text);
  }
  return node;
}

ExpressionPointer ExpressionParser::target(bool with_namespace) {
  auto first = single_target(with_namespace);
  if (!at_symbol(",")) return first;
  auto node = make(Kind::tuple, first->line);
  adopt(*node, std::move(first));
  while (skip_symbol(",")) {
    if (at_tuple_end({}) || at_symbol("=")) break;
    adopt(*node, single_target(with_namespace));
  }
  return node;
}

}  // namespace qnext::jinja
