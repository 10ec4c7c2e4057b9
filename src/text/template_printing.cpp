// str() and repr() as Python writes them.
#include <cmath>

#include "base/error.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

void append_escaped(std::string& out, uint32_t c) {
  if (c <= 0xFF)
    out += fmt::format("\\x{:02x}", c);
  else if (c <= 0xFFFF)
    out += fmt::format("\\u{:04x}", c);
  else
    out += fmt::format("\\U{:08x}", c);
}

void append_quoted(Runtime& runtime, std::string& out, const std::string& text) {
  runtime.allocate(2 * text.size());
  const bool has_single = text.find('\'') != std::string::npos;
  const char quote = has_single && text.find('"') == std::string::npos ? '"' : '\'';
  out += quote;
  for (size_t i = 0; i < text.size(); i += sequence_length(text, i)) {
    const uint32_t c = decode_at(text, i);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\\' || c == static_cast<uint32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(c);
    } else if (is_printable(c)) {
      append_code_point(out, c);
    } else {
      append_escaped(out, c);
    }
  }
  out += quote;
}

void append_items(Runtime& runtime, std::string& out, const Value& sequence) {
  const auto& items = sequence.items();
  out += sequence.is_list() ? '[' : '(';
  for (size_t i = 0; i < items.size(); ++i) {
    if (i) out += ", ";
    append_repr(runtime, out, items[i]);
  }
  if (sequence.is_tuple() && items.size() == 1) out += ',';
  out += sequence.is_list() ? ']' : ')';
}

void append_dict(Runtime& runtime, std::string& out, const Dict& dict) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : dict.entries) {
    if (!first) out += ", ";
    first = false;
    append_repr(runtime, out, key);
    out += ": ";
    append_repr(runtime, out, value);
  }
  out += '}';
}

}  // namespace

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  return json::format_double(value);
}

void append_repr(Runtime& runtime, std::string& out, const Value& value) {
  runtime.allocate(8);
  runtime.step();
  if (value.is_string()) {
    if (value.string().safe) out += "Markup(";
    append_quoted(runtime, out, value.text());
    if (value.string().safe) out += ')';
  } else if (value.is_sequence()) {
    runtime.check_stack();
    append_items(runtime, out, value);
  } else if (value.is_dict()) {
    runtime.check_stack();
    append_dict(runtime, out, value.dict());
  } else if (value.is_object()) {
    runtime.check_stack();
    out += value.object().repr(runtime);
  } else if (value.is_undefined()) {
    out += "Undefined";
  } else {
    append_text(runtime, out, value);
  }
}

void append_text(Runtime& runtime, std::string& out, const Value& value) {
  if (value.is_string()) {
    runtime.allocate(value.text().size());
    out += value.text();
  } else if (value.is_undefined()) {
    return;
  } else if (value.is_none()) {
    out += "None";
  } else if (value.is_bool()) {
    out += value.boolean() ? "True" : "False";
  } else if (value.is_integer()) {
    out += std::to_string(*value.integer());
  } else if (value.is_float()) {
    out += float_text(value.floating());
  } else {
    append_repr(runtime, out, value);
  }
}

std::string to_text(Runtime& runtime, const Value& value) {
  std::string out;
  append_text(runtime, out, value);
  return out;
}

std::string repr(Runtime& runtime, const Value& value) {
  std::string out;
  append_repr(runtime, out, value);
  return out;
}

std::string escape_html(Runtime& runtime, std::string_view text) {
  runtime.allocate(5 * text.size());
  std::string out;
  for (char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  return out;
}

Value soft_string(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value;
  return make_string(runtime, to_text(runtime, value));
}

}  // namespace qnext::jinja
