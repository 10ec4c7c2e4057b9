// The syntax tree of a template. One node type for expressions and one for statements: which
// fields a kind uses is said beside the kind.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template_arithmetic.h"
#include "text/template_filters.h"
#include "text/template_value.h"

namespace qnext::jinja {

struct Expression;
using ExpressionPointer = std::unique_ptr<Expression>;

enum class Comparison { equal, not_equal, less, less_equal, greater, greater_equal, in, not_in };

struct Expression {
  enum class Kind {
    constant,             // constant
    name,                 // text
    namespace_attribute,  // text.attribute, only as the target of a set
    list,                 // children
    tuple,                // children
    dict,                 // children: key, value, key, value, ...
    attribute,            // children[0].text
    item,                 // children[0][children[1]]
    slice,                // children[0][children[1]:children[2]:children[3]], null where absent
    call,                 // children[0](call)
    filter,               // children[0] | text(call); children[0] null in a filter block
    test,                 // children[0] is text(call)
    negate,               // -children[0]
    positive,             // +children[0]
    logical_not,          // not children[0]
    logical_and,          // children[0] and children[1]
    logical_or,           // children[0] or children[1]
    arithmetic,           // children[0] operation children[1]
    concatenate,          // children joined by ~
    compare,              // children[0] comparisons[0] children[1] comparisons[1] ...
    conditional           // children[0] if children[1] else children[2], null where absent
  };

  Kind kind;
  int line;
  int depth = 1;  // of the tree below, so that freeing it needs a bounded stack
  std::string text;
  std::string attribute;
  Value constant;
  std::vector<ExpressionPointer> children;
  Operator operation = Operator::add;
  std::vector<Comparison> comparisons;
  FilterFunction filter = nullptr;  // null: an unknown filter that may never be reached
  TestFunction test = nullptr;

  struct Call {
    std::vector<ExpressionPointer> positional;
    std::vector<std::pair<std::string, ExpressionPointer>> keywords;
    ExpressionPointer more_positional;  // *x
    ExpressionPointer more_keywords;    // **x
  };
  std::unique_ptr<Call> call;
};

struct Statement;
using Body = std::vector<Statement>;

struct Parameters {
  std::vector<std::string> names;
  std::vector<ExpressionPointer> defaults;  // of the last names
  // Which of these the body mentions: only then does a call pass them.
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
};

struct Statement {
  enum class Kind {
    text,          // text
    output,        // expressions
    condition,     // expressions[i] decides bodies[i]; one body more is the else
    loop,          // target in expressions[0] [if expressions[1]]; bodies: body, else
    assign,        // target = expressions[0]
    assign_block,  // target = bodies[0] [| expressions[0]]
    macro,         // text(parameters): bodies[0]
    call_block,    // expressions[0] called with bodies[0](parameters) as its caller
    filter_block,  // bodies[0] | expressions[0]
    with,          // targets[i] = expressions[i]; bodies[0]
    scope,         // bodies[0] with variables of its own
    break_loop,
    continue_loop
  };

  Kind kind;
  int line;
  std::string text;
  ExpressionPointer target;
  std::vector<ExpressionPointer> targets;
  std::vector<ExpressionPointer> expressions;
  std::vector<Body> bodies;
  Parameters parameters;
  bool recursive = false;
  bool uses_loop = false;
};

}  // namespace qnext::jinja
