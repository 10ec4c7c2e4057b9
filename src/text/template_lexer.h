// Cuts a template's source into tokens, white space already treated as trim_blocks, lstrip_blocks
// and the `-` and `+` marks ask.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qnext::jinja {

struct Token {
  enum class Kind {
    data,            // text between tags
    variable_begin,  // {{
    variable_end,
    block_begin,  // {%
    block_end,
    name,
    string,
    integer,
    floating,
    symbol,  // + - ( ) == ... in `text`
    end
  };
  Kind kind = Kind::end;
  std::string text;  // of a string: its value
  int64_t integer = 0;
  double floating = 0;
  int line = 1;
};

// Throws Error("chat template, line N: ...") on what is no template.
std::vector<Token> tokenize(std::string_view source);

[[noreturn]] void fail_at(int line, const std::string& problem);

}  // namespace qnext::jinja
