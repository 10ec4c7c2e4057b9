#include "text/template_format.h"

#include <cmath>

#include "base/error.h"
#include "text/template_lookup.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

// Hands out the values of "%..." conversions: by name from a dict, else in turn.
class PercentValues {
 public:
  explicit PercentValues(const Value& right) : right_(right) {}

  Value named(Runtime& runtime, const std::string& name) {
    if (!right_.is_dict()) fail("a format with %(name) needs a dict");
    const Value* value = right_.dict().find(runtime, Value(name));
    if (!value) fail("the values of a format lack '{}'", name);
    used_ = true;
    return *value;
  }

  Value next() {
    if (right_.is_tuple()) {
      if (position_ == right_.items().size()) fail("a format has too few values");
      return right_.items()[position_++];
    }
    if (used_) fail("a format has too few values");
    used_ = true;
    return right_;
  }

  void finish() const {
    const bool left_over =
        right_.is_tuple() ? position_ < right_.items().size()
                          : !used_ && !right_.is_dict() && !right_.is_list() && !right_.is_object();
    if (left_over) fail("a format has more values than conversions");
  }

 private:
  const Value& right_;
  size_t position_ = 0;
  bool used_ = false;
};

int64_t whole(const Value& value, char type) {
  if (const auto integer = value.integer()) return *integer;
  if (value.is_float() && type != 'x' && type != 'X' && type != 'o' && type != 'c') {
    const double x = std::trunc(value.floating());
    if (std::abs(x) < 9.2e18) return static_cast<int64_t>(x);
  }
  if (value.is_undefined()) fail_undefined(value);
  fail("%{} needs an integer, not '{}'", type, value.type_name());
}

double real(const Value& value, char type) {
  if (const auto integer = value.integer()) return static_cast<double>(*integer);
  if (value.is_float()) return value.floating();
  if (value.is_undefined()) fail_undefined(value);
  fail("%{} needs a number, not '{}'", type, value.type_name());
}

// Escapes what lies beyond ASCII in a repr, as Python's ascii() does.
std::string to_ascii(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i += sequence_length(text, i)) {
    const uint32_t c = decode_at(text, i);
    if (c < 0x80)
      out += static_cast<char>(c);
    else if (c <= 0xFF)
      out += fmt::format("\\x{:02x}", c);
    else
      out += c <= 0xFFFF ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
  }
  return out;
}

std::string convert_text(Runtime& runtime, const Value& value, char type, bool safe) {
  if (type == 's') {
    if (safe && !(value.is_string() && value.string().safe))
      return escape_html(runtime, to_text(runtime, value));
    return to_text(runtime, value);
  }
  std::string out = repr(runtime, value);
  if (type == 'a') out = to_ascii(out);
  return safe ? escape_html(runtime, out) : out;
}

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const Value& left, const Value& right)
      : runtime_(runtime), text_(left.text()), safe_(left.string().safe), values_(right) {}

  std::string run() {
    runtime_.allocate(text_.size());
    while (i_ < text_.size()) {
      if (text_[i_] != '%') {
        out_ += text_[i_++];
        continue;
      }
      ++i_;
      conversion();
    }
    values_.finish();
    return std::move(out_);
  }

 private:
  char peek() const {
    if (i_ >= text_.size()) fail("a format ends within a conversion");
    return text_[i_];
  }

  int64_t number() {
    if (peek() == '*') {
      ++i_;
      return whole(values_.next(), 'd');
    }
    int64_t value = 0;
    for (; peek() >= '0' && peek() <= '9'; ++i_)
      if ((value = value * 10 + (text_[i_] - '0')) > int64_t{1} << 31)
        fail("a format width or precision is too large");
    return value;
  }

  void conversion() {
    std::optional<Value> named;
    if (peek() == '(') {
      const size_t end = text_.find(')', i_);
      if (end == std::string::npos) fail("a format ends within %(name)");
      named = values_.named(runtime_, text_.substr(i_ + 1, end - i_ - 1));
      i_ = end + 1;
    }
    Specification specification;
    bool zero = false;
    for (;; ++i_) {
      const char flag = peek();
      if (flag == '-')
        specification.align = '<';
      else if (flag == '0')
        zero = true;
      else if (flag == '+')
        specification.sign = '+';
      else if (flag == ' ')
        specification.sign = specification.sign == '+' ? '+' : ' ';
      else if (flag == '#')
        specification.alternate = true;
      else
        break;
    }
    specification.width = number();
    if (specification.width < 0) {
      specification.align = '<';
      specification.width = -specification.width;
    }
    if (peek() == '.') {
      ++i_;
      specification.precision = std::max<int64_t>(number(), 0);
    }
    while (peek() == 'l' || peek() == 'h' || peek() == 'L') ++i_;
    const char type = text_[i_++];
    if (type == '%') {
      out_ += '%';
      return;
    }
    convert(type, named ? *named : values_.next(), specification, zero);
  }

  void convert(char type, const Value& value, Specification specification, bool zero) {
    std::string part;
    specification.type = type;
    const bool numeric = std::string_view("diuxXoeEfFgG").find(type) != std::string_view::npos;
    if (zero && numeric && specification.align != '<') {
      specification.fill = "0";
      specification.align = '=';
    }
    if (type == 's' || type == 'r' || type == 'a') {
      part = convert_text(runtime_, value, type, safe_);
      if (specification.precision >= 0)
        part.resize(offset_of_code_point(part, static_cast<size_t>(specification.precision)));
      part = pad(runtime_, std::move(part), specification);
    } else if (type == 'c' && value.is_string()) {
      if (value.string().length != 1) fail("%c needs one character");
      part = pad(runtime_, value.text(), specification);
    } else if (type == 'c') {
      part = format_integer(runtime_, whole(value, type), specification);
    } else if (std::string_view("diuxXo").find(type) != std::string_view::npos) {
      part = integer(type, whole(value, type), specification);
    } else if (numeric) {
      part = format_float(runtime_, real(value, type), specification);
    } else {
      fail("a format has the unknown conversion '%{}'", type);
    }
    runtime_.allocate(part.size());
    out_ += part;
  }

  // A precision of an integer is a minimum of digits.
  std::string integer(char type, int64_t value, Specification specification) {
    specification.type = type == 'i' || type == 'u' ? 'd' : type;
    const int64_t digits = std::exchange(specification.precision, -1);
    if (digits < 0) return format_integer(runtime_, value, specification);
    Specification inner = specification;
    inner.width = digits + (value < 0 || specification.sign != '-' ? 1 : 0) +
                  (specification.alternate && specification.type != 'd' ? 2 : 0);
    inner.fill = "0";
    inner.align = '=';
    return pad(runtime_, format_integer(runtime_, value, inner), specification);
  }

  Runtime& runtime_;
  const std::string& text_;
  bool safe_;
  PercentValues values_;
  size_t i_ = 0;
  std::string out_;
};

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Arguments& arguments)
      : runtime_(runtime), arguments_(arguments) {}

  std::string run(std::string_view text, int depth) {
    if (depth > 2) fail("a format nests its fields too deeply");
    runtime_.allocate(text.size());
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if ((c == '{' || c == '}') && i + 1 < text.size() && text[i + 1] == c) {
        out += c;
        ++i;
      } else if (c == '{') {
        const size_t end = field_end(text, i);
        const std::string part = field(text.substr(i + 1, end - i - 1), depth);
        runtime_.allocate(part.size());
        out += part;
        i = end;
      } else if (c == '}') {
        fail("a format has a '}}' without its '{{'");
      } else {
        out += c;
      }
    }
    return out;
  }

 private:
  static size_t field_end(std::string_view text, size_t begin) {
    int open = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      open += text[i] == '{' ? 1 : text[i] == '}' ? -1 : 0;
      if (open == 0) return i;
    }
    fail("a format has a '{{' without its '}}'");
  }

  std::string field(std::string_view text, int depth) {
    size_t name_end = 0;
    int brackets = 0;
    for (; name_end < text.size(); ++name_end) {
      const char c = text[name_end];
      brackets += c == '[' ? 1 : c == ']' ? -1 : 0;
      if (brackets == 0 && (c == '!' || c == ':')) break;
    }
    Value value = lookup(text.substr(0, name_end));
    std::string_view rest = text.substr(name_end);
    if (!rest.empty() && rest[0] == '!') {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':'))
        fail("a format has a conversion that is not !s, !r or !a");
      const char kind = rest[1];
      if (kind != 's' && kind != 'r' && kind != 'a')
        fail("a format has the conversion '!{}'", kind);
      value = make_string(runtime_, kind == 's' ? to_text(runtime_, value) : repr(runtime_, value));
      rest.remove_prefix(2);
    }
    const std::string specification = rest.empty() ? "" : run(rest.substr(1), depth + 1);
    return format_value(runtime_, value, specification);
  }

  Value lookup(std::string_view name) {
    const size_t head_end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(std::string(name.substr(0, head_end)));
    for (size_t i = head_end; i < name.size();) {
      if (name[i] == '.') {
        const size_t end = std::min(name.find_first_of(".[", i + 1), name.size());
        value = get_attribute(runtime_, value, std::string(name.substr(i + 1, end - i - 1)));
        i = end;
      } else if (name[i] == '[') {
        const size_t end = name.find(']', i);
        if (end == std::string_view::npos) fail("a format has a '[' without its ']'");
        const std::string key(name.substr(i + 1, end - i - 1));
        const bool digits = !key.empty() && key.find_first_not_of("0123456789") == key.npos;
        value = get_item(runtime_, value,
                         digits && key.size() < 18 ? Value(int64_t{std::stoll(key)}) : Value(key));
        i = end + 1;
      } else {
        fail("only '.' or '[' may follow ']' in a format");
      }
      if (value.is_undefined()) fail_undefined(value);
    }
    return value;
  }

  Value argument(const std::string& name) {
    const bool numbered = name.empty() || name.find_first_not_of("0123456789") == name.npos;
    if (!numbered) {
      for (const auto& [key, value] : arguments_.keywords)
        if (key == name) return value;
      fail("the values of a format lack '{}'", name);
    }
    if (name.size() > 9) fail("a format has too few values");
    if (numbering_ == (name.empty() ? Numbering::manual : Numbering::automatic))
      fail("a format mixes {{}} and {{0}}");
    numbering_ = name.empty() ? Numbering::automatic : Numbering::manual;
    const size_t index = name.empty() ? next_++ : static_cast<size_t>(std::stoul(name));
    if (index >= arguments_.positional.size()) fail("a format has too few values");
    return arguments_.positional[index];
  }

  enum class Numbering { open, automatic, manual };
  Runtime& runtime_;
  const Arguments& arguments_;
  size_t next_ = 0;
  Numbering numbering_ = Numbering::open;
};

}  // namespace

std::string format_percent(Runtime& runtime, const Value& left, const Value& right) {
  return PercentFormatter(runtime, left, right).run();
}

std::string format_braces(Runtime& runtime, const std::string& text, const Arguments& arguments) {
  return BraceFormatter(runtime, arguments).run(text, 0);
}

}  // namespace qnext::jinja
