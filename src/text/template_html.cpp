#include "text/template_html.h"

#include <charconv>
#include <utility>

#include "base/error.h"
#include "text/template_runtime.h"
#include "text/template_strings.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

std::string without(std::string_view text, std::string_view open, std::string_view close) {
  std::string out;
  size_t begin = 0;
  for (;;) {
    const size_t start = text.find(open, begin);
    const size_t end = start == not_found ? not_found : text.find(close, start);
    if (end == not_found) break;
    out += text.substr(begin, start - begin);
    begin = end + close.size();
  }
  return out += text.substr(begin);
}

// The character that &name; stands for; empty where the name is unknown.
std::string entity(std::string_view name) {
  static constexpr std::pair<std::string_view, const char*> known[] = {
      {"amp", "&"}, {"lt", "<"}, {"gt", ">"}, {"quot", "\""}, {"apos", "'"}, {"nbsp", "\xC2\xA0"}};
  for (const auto& [entity_name, text] : known)
    if (name == entity_name) return text;
  if (!name.starts_with('#')) return {};
  name.remove_prefix(1);
  const bool hexadecimal = name.starts_with('x') || name.starts_with('X');
  if (hexadecimal) name.remove_prefix(1);
  uint32_t value = 0;
  const auto parsed =
      std::from_chars(name.data(), name.data() + name.size(), value, hexadecimal ? 16 : 10);
  if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size() || value == 0 ||
      value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
    return {};
  std::string out;
  append_code_point(out, value);
  return out;
}

std::string decode_entities(std::string_view text) {
  constexpr size_t longest = 12;
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '&') {
      const size_t end = text.substr(i, longest).find(';');
      const std::string decoded = end == not_found ? "" : entity(text.substr(i + 1, end - 1));
      if (!decoded.empty()) {
        out += decoded;
        i += end;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

}  // namespace

std::string strip_tags(Runtime& runtime, std::string_view text) {
  runtime.allocate(4 * text.size());
  const std::string bare = without(without(text, "<!--", "-->"), "<", ">");
  std::string out;
  for (std::string_view word : split(runtime, bare, nullptr, -1)) {
    if (!out.empty()) out += ' ';
    out += word;
  }
  return decode_entities(out);
}

std::string quote_url(Runtime& runtime, std::string_view text, bool query) {
  runtime.allocate(3 * text.size());
  std::string out;
  for (char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != not_found || (c == '/' && !query);
    if (plain)
      out += c;
    else if (c == ' ' && query)
      out += '+';
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace qnext::jinja
