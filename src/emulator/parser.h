// The text of a PTX module taken apart: its variables and functions, and a function's body
// statement by statement. All views are into the text, which has to stay.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/statement.h"

namespace qnext::emulator {

// .reg, .param, .local, .shared, .global or .const
struct Variable {
  std::string_view space;  // "reg"
  std::string_view name;
  Type type = Type::none;
  size_t alignment = 1;
  size_t bytes = 0;          // of the whole array
  int count = 0;             // of %r<7>: 7 registers %r0 to %r6; else 0
  bool is_external = false;  // shared memory of a size known by the launch
  std::string_view initial;  // what stands behind =
};

struct FunctionText {
  std::string_view name;
  bool is_entry = false;
  std::vector<Variable> parameters, results;
  std::string_view directives;  // .maxntid 512, 1, 1 and the like
  std::string_view body;        // between the braces
  uint32_t line = 0;            // of the body's beginning
};

struct ModuleText {
  std::vector<Variable> variables;
  std::vector<FunctionText> functions;  // with a body
};

// Comments become spaces, so that lines stay where they are.
void blank_comments(std::string& text);

// Throws Error where it is no PTX.
ModuleText parse_module(std::string_view text);

// ".reg .b32 a, b" without its semicolon; empty for what declares nothing (.pragma, .loc).
std::vector<Variable> parse_variables(std::string_view declaration);

// The number in front of which `directive` stands in `text`: numbers_behind(".maxntid 512, 1, 1",
// ".maxntid") gives {512, 1, 1}; empty where it does not stand there.
std::vector<int> numbers_behind(std::string_view text, std::string_view directive);

class BodyReader {
 public:
  enum class Item { open_scope, close_scope, label, declaration, instruction, end };

  BodyReader(std::string_view body, uint32_t line) : rest_(body), line_(line) {}

  Item next();
  std::string_view text() const { return text_; }  // of a label, declaration or instruction
  const Statement& statement() const { return statement_; }

 private:
  void skip_spaces();
  void take(size_t count);

  std::string_view rest_, text_;
  uint32_t line_;
  Statement statement_;
};

}  // namespace qnext::emulator
