// The statements of a template: {% ... %} and the text between them.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "text/template_parser.h"

namespace qnext::jinja {

namespace {

using Kind = Statement::Kind;
using Names = std::vector<std::string_view>;

class TemplateParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body run() { return body({}); }

 private:
  // Statements up to a block tag that begins with one of `ends`, whose name is then current.
  // Without ends: up to the end of the template.
  Body body(const Names& ends) {
    check_nesting();
    const int first_line = current().line;
    Body out;
    for (;;) {
      if (conditions_ == 0) refuse_unknown();
      switch (current().kind) {
        case Token::Kind::data: {
          Statement text = make_statement(Kind::text);
          text.text = take().text;
          out.push_back(std::move(text));
          break;
        }
        case Token::Kind::variable_begin:
          out.push_back(output());
          break;
        case Token::Kind::block_begin:
          take();
          if (std::any_of(ends.begin(), ends.end(), [&](auto end) { return at_name(end); }))
            return out;
          out.push_back(statement());
          expect(Token::Kind::block_end, "'%}'");
          break;
        default:
          if (!ends.empty())
            fail_at(first_line, fmt::format("a block lacks its '{}'", ends.back()));
          return out;
      }
    }
  }

  // The body of a block up to its end tag, which is taken too.
  Body block(std::string_view end) {
    expect(Token::Kind::block_end, "'%}'");
    Body out = body({end});
    take();
    return out;
  }

  Statement make_statement(Kind kind) const {
    Statement out;
    out.kind = kind;
    out.line = current().line;
    return out;
  }

  Statement output() {
    Statement out = make_statement(Kind::output);
    take();
    out.expressions.push_back(tuple(true));
    expect(Token::Kind::variable_end, "'}}'");
    return out;
  }

  Statement statement() {
    static const std::map<std::string, Statement (TemplateParser::*)(), std::less<>> parsers{
        {"for", &TemplateParser::loop},
        {"if", &TemplateParser::condition},
        {"set", &TemplateParser::assignment},
        {"macro", &TemplateParser::macro},
        {"call", &TemplateParser::call_block},
        {"filter", &TemplateParser::filter_block},
        {"with", &TemplateParser::with},
        {"print", &TemplateParser::print},
        {"break", &TemplateParser::break_loop},
        {"continue", &TemplateParser::break_loop},
        {"generation", &TemplateParser::generation}};
    if (current().kind != Token::Kind::name) fail_here("expected the name of a statement");
    const std::string& name = current().text;
    if (const auto it = parsers.find(name); it != parsers.end()) return (this->*it->second)();
    for (const char* unsupported : {"include", "import", "from", "extends", "block", "autoescape"})
      if (name == unsupported)
        fail_here(fmt::format("'{}' is not supported: a chat template stands alone", name));
    fail_here(fmt::format("there is no statement named '{}'", name));
  }

  Statement loop() {
    Statement out = make_statement(Kind::loop);
    take();
    out.target = target(false);
    if (targets_name(*out.target, "loop")) fail_here("a for loop cannot assign to 'loop'");
    expect_name("in");
    out.expressions.push_back(tuple(false, "recursive"));
    loops_.push_back(false);
    if (skip_name("if")) {
      out.expressions.push_back(expression());
      loops_.back() = false;  // the condition cannot see the loop
    }
    out.recursive = skip_name("recursive");
    expect(Token::Kind::block_end, "'%}'");
    ++loop_depth_;
    out.bodies.push_back(body({"endfor", "else"}));
    --loop_depth_;
    out.uses_loop = loops_.back();
    loops_.pop_back();
    if (take().text == "else") out.bodies.push_back(block("endfor"));
    return out;
  }

  static bool targets_name(const Expression& target, std::string_view name) {
    if (target.kind == Expression::Kind::name) return target.text == name;
    return std::any_of(target.children.begin(), target.children.end(),
                       [&](const auto& child) { return targets_name(*child, name); });
  }

  Statement condition() {
    Statement out = make_statement(Kind::condition);
    ++conditions_;
    for (;;) {
      take();  // if or elif
      out.expressions.push_back(tuple(false));
      expect(Token::Kind::block_end, "'%}'");
      out.bodies.push_back(body({"elif", "else", "endif"}));
      if (at_name("elif")) continue;
      if (take().text == "else") out.bodies.push_back(block("endif"));
      break;
    }
    unknown_.clear();
    --conditions_;
    return out;
  }

  Statement assignment() {
    Statement out = make_statement(Kind::assign);
    take();
    out.target = target(true);
    if (!loops_.empty() && targets_name(*out.target, "loop"))
      fail_here("'loop' cannot be assigned to inside a for loop");
    if (skip_symbol("=")) {
      out.expressions.push_back(tuple(true));
      return out;
    }
    out.kind = Kind::assign_block;
    if (at_symbol("|")) out.expressions.push_back(filters(nullptr, false));
    out.bodies.push_back(block("endset"));
    return out;
  }

  void signature(Parameters& parameters) {
    expect_symbol("(");
    while (!at_symbol(")")) {
      if (!parameters.names.empty()) expect_symbol(",");
      std::string name = take_name();
      if (std::count(parameters.names.begin(), parameters.names.end(), name))
        fail_here(fmt::format("the parameter '{}' appears twice", name));
      parameters.names.push_back(std::move(name));
      if (skip_symbol("="))
        parameters.defaults.push_back(expression());
      else if (!parameters.defaults.empty())
        fail_here("a parameter without a default follows one that has a default");
    }
    take();
  }

  // A body that is called later, from anywhere: no loop of ours is around it then.
  Body callable_body(Parameters& parameters, std::string_view end) {
    const int outer_loops = std::exchange(loop_depth_, 0);
    macros_.push_back(&parameters);
    Body out = block(end);
    macros_.pop_back();
    loop_depth_ = outer_loops;
    const auto& names = parameters.names;
    const auto caller = std::find(names.begin(), names.end(), "caller");
    if (parameters.uses_caller && caller != names.end() &&
        names.end() - caller > static_cast<std::ptrdiff_t>(parameters.defaults.size()))
      fail_here("the parameter 'caller' of a macro needs a default");
    return out;
  }

  Statement macro() {
    Statement out = make_statement(Kind::macro);
    take();
    out.text = take_name();
    signature(out.parameters);
    out.bodies.push_back(callable_body(out.parameters, "endmacro"));
    return out;
  }

  Statement call_block() {
    Statement out = make_statement(Kind::call_block);
    take();
    if (at_symbol("(")) signature(out.parameters);
    out.expressions.push_back(expression());
    if (out.expressions[0]->kind != Expression::Kind::call) fail_here("expected a call");
    out.bodies.push_back(callable_body(out.parameters, "endcall"));
    return out;
  }

  Statement filter_block() {
    Statement out = make_statement(Kind::filter_block);
    take();
    out.expressions.push_back(filters(nullptr, true));
    out.bodies.push_back(block("endfilter"));
    return out;
  }

  Statement with() {
    Statement out = make_statement(Kind::with);
    take();
    while (current().kind != Token::Kind::block_end) {
      if (!out.targets.empty()) expect_symbol(",");
      out.targets.push_back(target(false));
      expect_symbol("=");
      out.expressions.push_back(expression());
    }
    out.bodies.push_back(block("endwith"));
    return out;
  }

  Statement print() {
    Statement out = make_statement(Kind::output);
    take();
    while (current().kind != Token::Kind::block_end) {
      if (!out.expressions.empty()) expect_symbol(",");
      out.expressions.push_back(expression());
    }
    return out;
  }

  Statement break_loop() {
    Statement out = make_statement(at_name("break") ? Kind::break_loop : Kind::continue_loop);
    if (loop_depth_ == 0) fail_here(fmt::format("'{}' stands outside a loop", current().text));
    take();
    return out;
  }

  // transformers' mark around what the assistant wrote; it has a scope of its own.
  Statement generation() {
    Statement out = make_statement(Kind::scope);
    take();
    Parameters unused;
    out.bodies.push_back(callable_body(unused, "endgeneration"));
    return out;
  }

  void mention(const std::string& name) override {
    for (Parameters* macro : macros_) {
      macro->uses_varargs |= name == "varargs";
      macro->uses_kwargs |= name == "kwargs";
      macro->uses_caller |= name == "caller";
    }
    if (name == "loop") std::fill(loops_.begin(), loops_.end(), true);
  }

  std::vector<Parameters*> macros_;
  std::vector<bool> loops_;  // whether each loop around here is mentioned
  int loop_depth_ = 0;
  int conditions_ = 0;  // the if statements around here
};

}  // namespace

Body parse_template(std::string_view source) {
  return TemplateParser(tokenize(source)).run();
}

}  // namespace qnext::jinja
