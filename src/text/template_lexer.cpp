#include "text/template_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "base/error.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

void fail_at(int line, const std::string& problem) {
  fail("chat template, line {}: {}", line, problem);
}

namespace {

bool is_name_start(uint32_t c) {
  return c == '_' || is_alphabetic(c);
}
bool is_name_part(uint32_t c) {
  return is_name_start(c) || is_numeric(c);
}

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if ((c | 32) >= 'a' && (c | 32) <= 'z') return (c | 32) - 'a' + 10;
  return 99;
}

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();  // Jinja drops one newline at the end of a template
  return out;
}

// The escapes of a Python string literal. Unknown ones stay as they are.
class Unescaper {
 public:
  Unescaper(std::string_view text, int line) : text_(text), line_(line) {}

  std::string run() {
    while (i_ < text_.size()) {
      if (text_[i_] != '\\' || i_ + 1 == text_.size())
        out_ += text_[i_++];
      else
        escape();
    }
    return std::move(out_);
  }

 private:
  void escape() {
    const char c = text_[i_ + 1];
    i_ += 2;
    static constexpr std::string_view names = "abfnrtv\\'\"\n";
    static constexpr std::array<std::string_view, 11> values{"\a", "\b", "\f", "\n", "\r", "\t",
                                                             "\v", "\\", "'",  "\"", ""};
    if (const size_t known = names.find(c); known != std::string_view::npos)
      out_ += values[known];
    else if (c == 'x')
      hexadecimal(2);
    else if (c == 'u')
      hexadecimal(4);
    else if (c == 'U')
      hexadecimal(8);
    else if (c == 'N')
      fail_at(line_, "\\N{...} in a string is not supported; write \\u and the code point");
    else if (c >= '0' && c <= '7')
      octal();
    else {
      out_ += '\\';
      --i_;
    }
  }

  void hexadecimal(size_t digits) {
    uint32_t value = 0;
    for (size_t k = 0; k < digits; ++k, ++i_) {
      if (i_ >= text_.size() || digit_value(text_[i_]) > 15)
        fail_at(line_, fmt::format("an escape in a string needs {} hexadecimal digits", digits));
      value = value << 4 | static_cast<uint32_t>(digit_value(text_[i_]));
    }
    append(value);
  }

  void octal() {
    uint32_t value = 0;
    --i_;
    for (int k = 0; k < 3 && i_ < text_.size() && digit_value(text_[i_]) < 8; ++k, ++i_)
      value = value * 8 + static_cast<uint32_t>(digit_value(text_[i_]));
    append(value);
  }

  void append(uint32_t value) {
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      fail_at(line_,
              fmt::format("an escape in a string names U+{:04X}, which is no character", value));
    append_code_point(out_, value);
  }

  std::string_view text_;
  int line_;
  size_t i_ = 0;
  std::string out_;
};

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) text();
    add(Token::Kind::end);
    return std::move(tokens_);
  }

 private:
  bool starts_with(std::string_view prefix, size_t at) const {
    return std::string_view(source_).substr(std::min(at, source_.size())).starts_with(prefix);
  }

  Token& add(Token::Kind kind, std::string value = {}) {
    tokens_.push_back({kind, std::move(value), 0, 0, line_});
    return tokens_.back();
  }

  // Moves on, counting lines; remembers whether a line begins here.
  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    if (to > position_) line_starting_ = source_[to - 1] == '\n';
    position_ = to;
  }

  size_t skip_spaces(size_t at) const {
    while (at < source_.size() && is_space(decode_at(source_, at)))
      at += sequence_length(source_, at);
    return at;
  }

  // {% raw %} with its marks: the offset behind it, or npos.
  size_t raw_tag_end(size_t at) const {
    size_t i = at + 2;
    if (i < source_.size() && (source_[i] == '-' || source_[i] == '+')) ++i;
    i = skip_spaces(i);
    if (!starts_with("raw", i)) return std::string::npos;
    i = skip_spaces(i + 3);
    if (starts_with("-%}", i)) return skip_spaces(i + 3);
    return starts_with("%}", i) ? i + 2 : std::string::npos;
  }

  void text() {
    size_t tag = position_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        add(Token::Kind::data, source_.substr(position_));
        advance(source_.size());
        return;
      }
      const char next = source_[tag + 1];
      if (next == '{' || next == '%' || next == '#') break;
    }
    data_before(tag, source_[tag + 1] != '{');
    if (source_[tag + 1] == '#')
      comment();
    else if (source_[tag + 1] == '{')
      tag_body(Token::Kind::variable_begin, Token::Kind::variable_end, "}}");
    else if (const size_t end = raw_tag_end(tag); end != std::string::npos)
      raw(end);
    else
      tag_body(Token::Kind::block_begin, Token::Kind::block_end, "%}");
  }

  // The text up to a tag, cut at its end as the tag's mark and lstrip_blocks ask.
  void data_before(size_t tag, bool strips) {
    std::string_view data = std::string_view(source_).substr(position_, tag - position_);
    const char mark = tag + 2 < source_.size() ? source_[tag + 2] : 0;
    if (mark == '-') {
      data = strip(data, Side::right, nullptr);
    } else if (mark != '+' && strips) {
      const size_t newline = data.rfind('\n');
      const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((begin > 0 || line_starting_) && strip(data.substr(begin), Side::left, nullptr).empty())
        data = data.substr(0, begin);
    }
    if (!data.empty()) add(Token::Kind::data, std::string(data));
    advance(tag);
    line_starting_ = false;
  }

  // Behind the end of a block or comment: `-` takes all white space, else one newline goes.
  size_t after_block_end(size_t end, char mark) const {
    if (mark == '-') return skip_spaces(end);
    return mark != '+' && starts_with("\n", end) ? end + 1 : end;
  }

  void comment() {
    const size_t end = source_.find("#}", position_ + 2);
    if (end == std::string::npos) fail_at(line_, "a comment lacks its end '#}'");
    // The mark may be the one that opens it: {#-#} has one mark for both ends... Python's
    // expression takes the shortest text, so that mark belongs to the beginning.
    const bool has_mark = end > position_ + 2;
    size_t from = position_ + 2;
    if (source_[from] == '-' || source_[from] == '+') ++from;
    const char mark = has_mark && end > from ? source_[end - 1] : 0;
    advance(after_block_end(end + 2, mark));
  }

  void raw(size_t begin) {
    const int first_line = line_;
    if (begin == source_.size()) {  // nothing follows: Jinja does not ask for the end
      advance(begin);
      return;
    }
    for (size_t at = source_.find("{%", begin);; at = source_.find("{%", at + 1)) {
      if (at == std::string::npos) fail_at(first_line, "a raw block lacks its {% endraw %}");
      size_t i = at + 2;
      const char mark = i < source_.size() ? source_[i] : '\0';
      if (mark == '-' || mark == '+') ++i;
      i = skip_spaces(i);
      if (!starts_with("endraw", i)) continue;
      i = skip_spaces(i + 6);
      const char end_mark = i < source_.size() ? source_[i] : '\0';
      if (end_mark == '-' || end_mark == '+') ++i;
      if (!starts_with("%}", i)) continue;
      advance(begin);
      data_before(at, true);
      advance(after_block_end(i + 2, end_mark));
      return;
    }
  }

  void tag_body(Token::Kind begin, Token::Kind end, std::string_view closer) {
    add(begin);
    size_t at = position_ + 2;
    if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) ++at;
    advance(at);
    open_.clear();
    for (;;) {
      advance(skip_spaces(position_));
      if (position_ >= source_.size())
        fail_at(line_, fmt::format("a tag lacks its end '{}'", closer));
      if (open_.empty() && finish(end, closer)) return;
      token();
    }
  }

  bool finish(Token::Kind end, std::string_view closer) {
    const char first = source_[position_];
    const bool marked = first == '-' || (first == '+' && end == Token::Kind::block_end);
    if (!starts_with(closer, position_ + (marked ? 1 : 0))) return false;
    add(end);
    const size_t behind = position_ + (marked ? 3 : 2);
    if (end == Token::Kind::block_end)
      advance(after_block_end(behind, marked ? first : '\0'));
    else
      advance(marked ? skip_spaces(behind) : behind);
    return true;
  }

  void token() {
    const char c = source_[position_];
    if (c >= '0' && c <= '9')
      number();
    else if (c == '\'' || c == '"')
      string(c);
    else if (is_name_part(decode_at(source_, position_)))
      name();
    else
      symbol();
  }

  void name() {
    size_t end = position_;
    while (end < source_.size() && is_name_part(decode_at(source_, end)))
      end += sequence_length(source_, end);
    if (!is_name_start(decode_at(source_, position_)))
      fail_at(line_, "a name begins with a character that no name may begin with");
    add(Token::Kind::name, source_.substr(position_, end - position_));
    advance(end);
  }

  void string(char quote) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail_at(line_, "a string lacks its closing quote");
    const auto body = std::string_view(source_).substr(position_ + 1, end - position_ - 1);
    add(Token::Kind::string, Unescaper(body, line_).run());
    advance(end + 1);
  }

  // Digits of a base with single underscores between them; the offset behind them.
  size_t digits_end(size_t at, int base, bool leading_underscore) const {
    size_t end = at;
    bool may_underscore = leading_underscore;
    for (size_t i = at; i < source_.size(); ++i) {
      if (source_[i] == '_' && may_underscore) {
        may_underscore = false;
      } else if (digit_value(source_[i]) < base) {
        may_underscore = true;
        end = i + 1;
      } else {
        break;
      }
    }
    return end;
  }

  void number() {
    const size_t whole_end = digits_end(position_, 10, false);
    size_t end = whole_end;
    // "a.0.1" counts through items: a number behind a dot has no fraction.
    const bool behind_dot = position_ > 0 && source_[position_ - 1] == '.';
    if (!behind_dot) {
      if (starts_with(".", end) && digits_end(end + 1, 10, false) > end + 1)
        end = digits_end(end + 1, 10, false);
      if (end < source_.size() && (source_[end] | 32) == 'e') {
        size_t exponent = end + 1;
        if (starts_with("+", exponent) || starts_with("-", exponent)) ++exponent;
        if (digits_end(exponent, 10, false) > exponent) end = digits_end(exponent, 10, false);
      }
    }
    if (end > whole_end)
      floating(end);
    else
      integer();
  }

  std::string without_underscores(size_t begin, size_t end) const {
    std::string out = source_.substr(begin, end - begin);
    std::erase(out, '_');
    return out;
  }

  void floating(size_t end) {
    const std::string text = without_underscores(position_, end);
    add(Token::Kind::floating).floating = std::strtod(text.c_str(), nullptr);
    advance(end);
  }

  void integer() {
    int base = 10;
    size_t begin = position_, end = position_;
    if (source_[position_] == '0') {
      const char kind =
          position_ + 1 < source_.size() ? static_cast<char>(source_[position_ + 1] | 32) : '\0';
      base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 1;  // base 1: zeros only
      if (base > 1) {
        begin += 2;
        end = digits_end(begin, base, true);
      }
      if (base == 1 || end == begin) {  // "0x" alone is 0 and a name
        base = 1;
        begin = position_;
        end = digits_end(position_, 1, false);
      }
    } else {
      end = digits_end(position_, 10, false);
    }
    const std::string text = without_underscores(begin, end);
    Token& token = add(Token::Kind::integer);
    if (base > 1) {
      const auto result =
          std::from_chars(text.data(), text.data() + text.size(), token.integer, base);
      if (result.ec != std::errc()) fail_at(line_, "an integer leaves the range of 64 bits");
    }
    advance(end);
  }

  void symbol() {
    static constexpr std::array<std::string_view, 25> symbols{
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};
    for (std::string_view symbol : symbols) {
      if (!starts_with(symbol, position_)) continue;
      balance(symbol[0]);
      add(Token::Kind::symbol, std::string(symbol));
      advance(position_ + symbol.size());
      return;
    }
    if (starts_with(";", position_)) fail_at(line_, "unexpected ';'");
    const size_t length = sequence_length(source_, position_);
    fail_at(line_, fmt::format("unexpected character '{}'", source_.substr(position_, length)));
  }

  void balance(char c) {
    if (c == '(' || c == '[' || c == '{') open_ += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c != ')' && c != ']' && c != '}') return;
    if (open_.empty()) fail_at(line_, fmt::format("unexpected '{}'", c));
    if (open_.back() != c)
      fail_at(line_, fmt::format("unexpected '{}', expected '{}'", c, open_.back()));
    open_.pop_back();
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::string open_;  // the closing brackets that are due
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (!is_valid_utf8(source)) fail("chat template: the text is not valid UTF-8");
  return Lexer(normalize_newlines(source)).run();
}

}  // namespace qnext::jinja
