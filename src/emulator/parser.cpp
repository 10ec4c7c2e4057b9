#include "emulator/parser.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace qnext::emulator {
namespace {

constexpr std::string_view spaces = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(spaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(spaces) - begin + 1);
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '$' || c == '%' || c == '.';
}

// The first part of `text` that is a name; `text` is what follows.
std::string_view take_name(std::string_view& text) {
  text = trimmed(text);
  size_t length = 0;
  while (length < text.size() && is_name_character(text[length])) ++length;
  const std::string_view name = text.substr(0, length);
  text.remove_prefix(length);
  return name;
}

// Parts at commas outside of brackets of any kind.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i == text.size() || (text[i] == ',' && depth == 0)) {
      parts.push_back(trimmed(text.substr(begin, i - begin)));
      begin = i + 1;
    } else if (text[i] == '{' || text[i] == '[' || text[i] == '(') {
      ++depth;
    } else if (text[i] == '}' || text[i] == ']' || text[i] == ')') {
      --depth;
    }
  }
  if (parts.size() == 1 && parts[0].empty()) parts.clear();
  return parts;
}

template <typename T>
T number(std::string_view text) {
  T value{};
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc{} || result.ptr != text.data() + text.size())
    fail("PTX: \"{}\" is no number", text);
  return value;
}

// Where the bracket that opens at text[at] closes.
size_t closing(std::string_view text, size_t at) {
  const char open = text[at];
  const char close = open == '{' ? '}' : open == '(' ? ')' : ']';
  int depth = 0;
  for (size_t i = at; i < text.size(); ++i) {
    depth += text[i] == open ? 1 : text[i] == close ? -1 : 0;
    if (depth == 0) return i;
  }
  fail("PTX: a {} is not closed", open);
}

// name, name[16], name[4][8], %r<7>, name = {1, 2}
Variable parse_declarator(std::string_view text, const Variable& common) {
  Variable variable = common;
  variable.name = take_name(text);
  size_t elements = 1;
  for (text = trimmed(text); !text.empty(); text = trimmed(text)) {
    if (text[0] == '<') {
      const size_t end = text.find('>');
      variable.count = number<int>(text.substr(1, end - 1));
      text.remove_prefix(end + 1);
    } else if (text[0] == '[') {
      const size_t end = closing(text, 0);
      const std::string_view size = trimmed(text.substr(1, end - 1));
      elements *= size.empty() ? 0 : number<size_t>(size);
      text.remove_prefix(end + 1);
    } else if (text[0] == '=') {
      variable.initial = trimmed(text.substr(1));
      break;
    } else {
      fail("PTX: \"{}\" in a declaration", text);
    }
  }
  variable.bytes = static_cast<size_t>(std::max(bits_of(variable.type), 8)) / 8 * elements;
  return variable;
}

std::vector<Variable> parse_parameters(std::string_view list) {
  std::vector<Variable> parameters;
  for (const std::string_view one : split(list)) {
    for (const Variable& variable : parse_variables(one)) parameters.push_back(variable);
  }
  return parameters;
}

uint32_t lines_in(std::string_view text) {
  return static_cast<uint32_t>(std::count(text.begin(), text.end(), '\n'));
}

// From behind ".entry" or ".func" to the closing brace, or the semicolon of a declaration.
FunctionText take_function(std::string_view& rest, bool is_entry) {
  FunctionText function;
  function.is_entry = is_entry;
  rest = trimmed(rest);
  if (rest.starts_with('(')) {
    const size_t end = closing(rest, 0);
    function.results = parse_parameters(rest.substr(1, end - 1));
    rest.remove_prefix(end + 1);
  }
  function.name = take_name(rest);
  rest = trimmed(rest);
  if (rest.starts_with('(')) {
    const size_t end = closing(rest, 0);
    function.parameters = parse_parameters(rest.substr(1, end - 1));
    rest.remove_prefix(end + 1);
  }
  const size_t end = rest.find_first_of("{;");
  if (end == std::string_view::npos) fail("PTX: function {} has no body", function.name);
  function.directives = rest.substr(0, end);
  if (rest[end] == '{') {
    const size_t last = closing(rest, end);
    function.body = rest.substr(end + 1, last - end - 1);
    rest.remove_prefix(last + 1);
  } else {
    rest.remove_prefix(end + 1);
  }
  return function;
}

Argument parse_address(std::string_view inside) {
  Argument argument;
  argument.kind = Argument::Kind::address;
  const std::vector<std::string_view> parts = split(inside);
  std::string_view base = parts.at(0);
  if (parts.size() > 1) {
    const std::string_view list = parts[1];
    argument.elements = split(list.substr(1, list.size() - 2));
  }
  const size_t plus = base.find('+');
  if (plus != std::string_view::npos) {
    argument.offset = number<int64_t>(trimmed(base.substr(plus + 1)));
    base = trimmed(base.substr(0, plus));
  }
  argument.text = base;
  return argument;
}

Argument parse_argument(std::string_view text) {
  Argument argument;
  argument.text = text;
  const size_t bar = text.find('|');
  if (text.starts_with('{') || text.starts_with('(')) {
    argument.kind = text[0] == '{' ? Argument::Kind::vector : Argument::Kind::list;
    argument.elements = split(text.substr(1, text.size() - 2));
  } else if (text.starts_with('[')) {
    argument = parse_address(trimmed(text.substr(1, text.size() - 2)));
  } else if (bar != std::string_view::npos) {
    argument.kind = Argument::Kind::pair;
    argument.elements = {trimmed(text.substr(0, bar)), trimmed(text.substr(bar + 1))};
  }
  return argument;
}

// Dots part an opcode; "::" does not.
std::vector<std::string_view> parts_of(std::string_view opcode) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= opcode.size();) {
    const size_t end = std::min(opcode.find('.', begin), opcode.size());
    parts.push_back(opcode.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

Statement parse_statement(std::string_view text, uint32_t line) {
  Statement statement;
  statement.line = line;
  if (text.starts_with('@')) {
    text.remove_prefix(1);
    statement.guard_inverted = text.starts_with('!');
    if (statement.guard_inverted) text.remove_prefix(1);
    statement.guard = take_name(text);
    text = trimmed(text);
  }
  const size_t end = std::min(text.find_first_of(spaces), text.size());
  statement.opcode = text.substr(0, end);
  statement.parts = parts_of(statement.opcode);
  for (const std::string_view part : split(text.substr(end)))
    statement.arguments.push_back(parse_argument(part));
  return statement;
}

}  // namespace

bool Statement::has(std::string_view part) const {
  return std::find(parts.begin(), parts.end(), part) != parts.end();
}

Type Statement::type(size_t from_the_end) const {
  return from_the_end < parts.size() ? type_of(parts[parts.size() - 1 - from_the_end]) : Type::none;
}

void blank_comments(std::string& text) {
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] != '/') continue;
    size_t end = i;
    if (text[i + 1] == '/') {
      end = std::min(text.find('\n', i), text.size());
    } else if (text[i + 1] == '*') {
      end = std::min(text.find("*/", i + 2), text.size() - 2) + 2;
    }
    for (; i < end; ++i) {
      if (text[i] != '\n') text[i] = ' ';
    }
  }
}

std::vector<Variable> parse_variables(std::string_view declaration) {
  Variable common;
  std::string_view rest = trimmed(declaration);
  while (rest.starts_with('.')) {
    const std::string_view word = take_name(rest).substr(1);
    if (word == "reg" || word == "param" || word == "local" || word == "shared" ||
        word == "global" || word == "const") {
      if (common.space.empty()) common.space = word;
    } else if (word == "align") {
      common.alignment = number<size_t>(take_name(rest));
    } else if (word == "extern") {
      common.is_external = true;
    } else if (type_of(word) != Type::none) {
      common.type = type_of(word);
    } else if (word == "pragma" || word == "loc" || word == "file") {
      return {};
    }
    rest = trimmed(rest);
  }
  if (common.space.empty() || common.type == Type::none) return {};
  common.alignment = std::max<size_t>(common.alignment,
                                      static_cast<size_t>(std::max(bits_of(common.type), 8)) / 8);
  std::vector<Variable> variables;
  for (const std::string_view one : split(rest)) variables.push_back(parse_declarator(one, common));
  return variables;
}

std::vector<int> numbers_behind(std::string_view text, std::string_view directive) {
  const size_t at = text.find(directive);
  if (at == std::string_view::npos) return {};
  text.remove_prefix(at + directive.size());
  text = trimmed(text.substr(0, text.find_first_not_of("0123456789, \t\r\n")));
  std::vector<int> numbers;
  for (const std::string_view one : split(text)) {
    if (!one.empty()) numbers.push_back(number<int>(one.substr(0, one.find_first_of(spaces))));
  }
  return numbers;
}

ModuleText parse_module(std::string_view text) {
  ModuleText module;
  std::string_view rest = trimmed(text);
  while (!rest.empty()) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    if (line.starts_with(".version") || line.starts_with(".target") ||
        line.starts_with(".address_size") || line.starts_with(".file")) {
      rest.remove_prefix(line.size());
      rest = trimmed(rest);
      continue;
    }
    // Up to the first word that decides: a function or a variable, with linkage in front.
    std::string_view ahead = rest;
    std::string_view word = take_name(ahead);
    while (word == ".visible" || word == ".weak" || word == ".extern") word = take_name(ahead);
    if (word == ".entry" || word == ".func") {
      FunctionText function = take_function(ahead, word == ".entry");
      if (!function.body.empty()) {
        function.line =
            1 + lines_in(text.substr(0, static_cast<size_t>(function.body.data() - text.data())));
        module.functions.push_back(std::move(function));
      }
      rest = trimmed(ahead);
      continue;
    }
    const size_t end = rest.find(';');
    if (!word.starts_with('.') || end == std::string_view::npos)
      fail("PTX: \"{}\" is neither a variable nor a function", line);
    for (const Variable& variable : parse_variables(rest.substr(0, end)))
      module.variables.push_back(variable);
    rest = trimmed(rest.substr(end + 1));
  }
  return module;
}

void BodyReader::take(size_t count) {
  line_ += lines_in(rest_.substr(0, count));
  rest_.remove_prefix(count);
}

void BodyReader::skip_spaces() {
  take(std::min(rest_.find_first_not_of(" \t\r\n;"), rest_.size()));
}

BodyReader::Item BodyReader::next() {
  skip_spaces();
  if (rest_.empty()) return Item::end;
  if (rest_[0] == '{' || rest_[0] == '}') {
    const bool open = rest_[0] == '{';
    take(1);
    return open ? Item::open_scope : Item::close_scope;
  }
  size_t length = 0;
  while (length < rest_.size() && is_name_character(rest_[length])) ++length;
  if (length > 0 && length < rest_.size() && rest_[length] == ':' &&
      (length + 1 == rest_.size() || rest_[length + 1] != ':')) {
    text_ = rest_.substr(0, length);
    take(length + 1);
    return Item::label;
  }
  const size_t end = rest_.find(';');
  if (end == std::string_view::npos) fail("PTX: no semicolon behind \"{}\"", rest_.substr(0, 80));
  text_ = trimmed(rest_.substr(0, end));
  const uint32_t line = line_;
  take(end + 1);
  if (text_.starts_with('.')) return Item::declaration;
  statement_ = parse_statement(text_, line);
  return Item::instruction;
}

}  // namespace qnext::emulator
