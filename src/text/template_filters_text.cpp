// The filters on text.
#include <algorithm>

#include "base/error.h"
#include "text/template_arguments.h"
#include "text/template_arithmetic.h"
#include "text/template_filters.h"
#include "text/template_format.h"
#include "text/template_html.h"
#include "text/template_lookup.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_strings.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

template <std::string (*convert)(std::string_view)>
Value convert_case(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("this filter", arguments, {});
  const Value text = soft_string(runtime, input);
  runtime.allocate(3 * text.text().size());
  return make_string(runtime, convert(text.text()), text.string().safe);
}

// Upper case for the first letter behind white space, '-' or an opening bracket.
std::string title_words(std::string_view text) {
  std::string out;
  const auto separates = [&](size_t i) {
    const uint32_t c = decode_at(text, i);
    return is_space(c) || std::string_view("-({[<").find(text[i]) != std::string_view::npos;
  };
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    if (separates(i)) {
      while (end < text.size() && separates(end)) end += sequence_length(text, end);
      out.append(text, i, end - i);
    } else {
      while (end < text.size() && !separates(end)) end += sequence_length(text, end);
      const size_t first = sequence_length(text, i);
      out += to_upper(text.substr(i, first));
      out += to_lower(text.substr(i + first, end - i - first));
    }
    i = end;
  }
  return out;
}

Value filter_trim(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  const Value text = soft_string(runtime, input);
  runtime.scan(text.text().size());
  std::string_view characters;
  if (bound.given(0)) characters = bound.text(0);
  return make_string(
      runtime, std::string(strip(text.text(), Side::both, bound.given(0) ? &characters : nullptr)),
      text.string().safe);
}

Value filter_string(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("string", arguments, {});
  return soft_string(runtime, input);
}

Value filter_safe(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("safe", arguments, {});
  return make_string(runtime, to_text(runtime, input), true);
}

Value filter_escape(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("escape", arguments, {});
  if (input.is_string() && input.string().safe) return input;
  return make_string(runtime, escape_html(runtime, to_text(runtime, input)), true);
}

Value filter_forceescape(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("forceescape", arguments, {});
  return make_string(runtime, escape_html(runtime, to_text(runtime, input)), true);
}

Value filter_striptags(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("striptags", arguments, {});
  return make_string(runtime, strip_tags(runtime, to_text(runtime, input)));
}

Value filter_replace(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const int64_t limit = bound.given(2) ? bound.integer(2, -1) : -1;
  return make_string(runtime, replace(runtime, to_text(runtime, input), to_text(runtime, bound[0]),
                                      to_text(runtime, bound[1]), limit));
}

Value filter_center(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("center", arguments, {"width"});
  const Value text = soft_string(runtime, input);
  return make_string(runtime, center(runtime, text.text(), bound.integer(0, 80), " "),
                     text.string().safe);
}

Value filter_format(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keywords.empty())
    fail("format takes positional or named arguments, not both");
  const Value text = soft_string(runtime, input);
  if (arguments.keywords.empty())
    return make_string(runtime,
                       format_percent(runtime, text, make_tuple(runtime, arguments.positional)));
  Dict named;
  for (const auto& [name, value] : arguments.keywords) named.set(runtime, Value(name), value);
  return make_string(runtime, format_percent(runtime, text, make_dict(runtime, std::move(named))));
}

const String& needs_text(const Value& input, std::string_view filter) {
  if (input.is_undefined()) fail_undefined(input);
  if (!input.is_string()) fail("{} needs a string, not '{}'", filter, input.type_name());
  return input.string();
}

Value filter_indent(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  const String& text = needs_text(input, "indent");
  const std::string indent = bound.has(0) && bound[0].is_string()
                                 ? bound[0].text()
                                 : repeat(runtime, " ", bound.integer(0, 4));
  const bool blank = bound.flag(runtime, 2, false);
  runtime.allocate(text.text.size());
  const std::string source = text.text + "\n";
  std::string out = bound.flag(runtime, 1, false) ? indent : "";
  bool first = true;
  for (std::string_view line : split_lines(runtime, source, false)) {
    if (!first) out += '\n';
    if (!first && (blank || !line.empty())) {
      runtime.allocate(indent.size());
      out += indent;
    }
    first = false;
    out += line;
  }
  return make_string(runtime, std::move(out), text.safe);
}

Value filter_truncate(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const int64_t length = bound.integer(0, 255);
  const Value end = bound.value_or(2, Value("..."));
  const int64_t leeway = bound.given(3) ? bound.integer(3, 5) : 5;
  const auto end_length = static_cast<int64_t>(needs_text(end, "the end of truncate").length);
  if (length < end_length) fail("truncate needs a length of at least {}", end_length);
  if (leeway < 0) fail("truncate needs a leeway of at least 0");
  const String& text = needs_text(input, "truncate");
  const auto size = static_cast<int64_t>(text.length);
  if (size <= length || size - length <= leeway) return input;
  runtime.scan(text.text.size());
  std::string cut = text.text.substr(
      0, offset_of_code_point(text.text, static_cast<size_t>(length - end_length)));
  if (!bound.flag(runtime, 1, false)) {
    const size_t space = cut.rfind(' ');
    if (space != std::string::npos) cut.resize(space);
  }
  return make_string(runtime, cut + end.text(), text.safe);
}

Value filter_wordcount(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("wordcount", arguments, {});
  const Value text = soft_string(runtime, input);
  const std::string& bytes = text.text();
  runtime.scan(bytes.size());
  int64_t count = 0;
  bool inside = false;
  for (size_t i = 0; i < bytes.size(); i += sequence_length(bytes, i)) {
    const uint32_t c = decode_at(bytes, i);
    const bool word = c == '_' || is_alphabetic(c) || is_numeric(c);
    count += word && !inside ? 1 : 0;
    inside = word;
  }
  return count;
}

Value filter_urlencode(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("urlencode", arguments, {});
  if (input.is_string() || !is_iterable(input))
    return make_string(runtime, quote_url(runtime, to_text(runtime, input), false));
  std::string out;
  const auto add = [&](const Value& key, const Value& value) {
    if (!out.empty()) out += '&';
    out += quote_url(runtime, to_text(runtime, key), true) + "=" +
           quote_url(runtime, to_text(runtime, value), true);
  };
  if (input.is_dict()) {
    for (const auto& [key, value] : input.dict().entries) add(key, value);
    return make_string(runtime, std::move(out));
  }
  for (const Value& pair : to_vector(runtime, input)) {
    const auto items = to_vector(runtime, pair);
    if (items.size() != 2) fail("urlencode needs pairs");
    add(items[0], items[1]);
  }
  return make_string(runtime, std::move(out));
}

Value filter_xmlattr(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("xmlattr", arguments, {"autospace"});
  if (input.is_undefined()) fail_undefined(input);
  if (!input.is_dict()) fail("xmlattr needs a dict, not '{}'", input.type_name());
  std::string out;
  const auto escaped = [&](const Value& value) {
    return value.is_string() && value.string().safe ? value.text()
                                                    : escape_html(runtime, to_text(runtime, value));
  };
  for (const auto& [key, value] : input.dict().entries) {
    if (value.is_none() || value.is_undefined()) continue;
    if (needs_text(key, "xmlattr").text.find_first_of(" \t\n\r\f\v/>=") != std::string::npos)
      fail("xmlattr found an attribute name with white space, '/', '>' or '='");
    if (!out.empty() || bound.flag(runtime, 0, true)) out += ' ';
    out += escaped(key) + "=\"" + escaped(value) + "\"";
  }
  return make_string(runtime, std::move(out));
}

// The pieces between which a line may break: words, runs of white space, and the parts of words
// with hyphens between letters.
std::vector<std::string_view> wrap_pieces(std::string_view line, bool at_hyphens) {
  std::vector<std::string_view> pieces;
  const auto space = [&](size_t i) { return is_space(decode_at(line, i)); };
  for (size_t i = 0; i < line.size();) {
    size_t end = i;
    const bool blank = space(i);
    while (end < line.size() && space(end) == blank) {
      const bool hyphen = at_hyphens && line[end] == '-' && end > i + 1 && end + 2 < line.size() &&
                          is_alphabetic(static_cast<unsigned char>(line[end - 1])) &&
                          is_alphabetic(static_cast<unsigned char>(line[end - 2])) &&
                          is_alphabetic(decode_at(line, end + 1));
      end += sequence_length(line, end);
      if (hyphen) break;
    }
    pieces.push_back(line.substr(i, end - i));
    i = end;
  }
  return pieces;
}

// Python's textwrap of one line.
std::vector<std::string> wrap_line(std::string_view text, int64_t width, bool break_long,
                                   bool at_hyphens) {
  std::vector<std::string_view> pieces = wrap_pieces(text, at_hyphens);
  std::reverse(pieces.begin(), pieces.end());
  std::vector<std::string> lines;
  const auto blank = [](std::string_view piece) { return is_space(decode_at(piece, 0)); };
  const auto size = [](std::string_view piece) {
    return static_cast<int64_t>(count_code_points(piece));
  };
  while (!pieces.empty()) {
    if (!lines.empty() && blank(pieces.back())) pieces.pop_back();
    std::vector<std::string_view> line;
    int64_t used = 0;
    while (!pieces.empty() && used + size(pieces.back()) <= width) {
      used += size(pieces.back());
      line.push_back(pieces.back());
      pieces.pop_back();
    }
    if (!pieces.empty() && size(pieces.back()) > width) {
      if (break_long) {
        const size_t cut = offset_of_code_point(
            pieces.back(), static_cast<size_t>(std::max<int64_t>(width - used, 1)));
        line.push_back(pieces.back().substr(0, cut));
        pieces.back().remove_prefix(cut);
        if (pieces.back().empty()) pieces.pop_back();
      } else if (line.empty()) {
        line.push_back(pieces.back());
        pieces.pop_back();
      }
    }
    if (!line.empty() && blank(line.back())) line.pop_back();
    if (line.empty()) continue;
    lines.emplace_back();
    for (std::string_view piece : line) lines.back() += piece;
  }
  return lines;
}

Value filter_wordwrap(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("wordwrap", arguments,
                    {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  const int64_t width = bound.integer(0, 79);
  if (width <= 0) fail("wordwrap needs a width above 0");
  const std::string glue = bound.given(2) ? bound.text(2) : "\n";
  const String& text = needs_text(input, "wordwrap");
  runtime.step(static_cast<int64_t>(text.text.size()));
  std::string out;
  bool first = true;
  for (std::string_view line : split_lines(runtime, text.text, false)) {
    const auto wrapped =
        wrap_line(line, width, bound.flag(runtime, 1, true), bound.flag(runtime, 3, true));
    if (!first) out += glue;
    first = false;
    for (size_t i = 0; i < wrapped.size(); ++i) {
      runtime.allocate(glue.size() + wrapped[i].size());
      if (i) out += glue;
      out += wrapped[i];
    }
  }
  return make_string(runtime, std::move(out));
}

Value filter_attr(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  const std::string& name = bound.text(0);
  if (input.is_undefined()) fail_undefined(input);
  if (input.is_dict()) {  // attributes only, never items
    auto method = find_method(runtime, input, name);
    return method ? *method
                  : Value::undefined(fmt::format("'dict object' has no attribute '{}'", name));
  }
  return get_attribute(runtime, input, name);
}

}  // namespace

const std::vector<FilterEntry>& text_filters() {
  static const std::vector<FilterEntry> entries{{"attr", filter_attr},
                                                {"capitalize", convert_case<capitalize>},
                                                {"center", filter_center},
                                                {"e", filter_escape},
                                                {"escape", filter_escape},
                                                {"forceescape", filter_forceescape},
                                                {"format", filter_format},
                                                {"indent", filter_indent},
                                                {"lower", convert_case<to_lower>},
                                                {"replace", filter_replace},
                                                {"safe", filter_safe},
                                                {"string", filter_string},
                                                {"striptags", filter_striptags},
                                                {"title", convert_case<title_words>},
                                                {"tojson", filter_tojson},
                                                {"trim", filter_trim},
                                                {"truncate", filter_truncate},
                                                {"upper", convert_case<to_upper>},
                                                {"urlencode", filter_urlencode},
                                                {"wordcount", filter_wordcount},
                                                {"wordwrap", filter_wordwrap},
                                                {"xmlattr", filter_xmlattr}};
  return entries;
}

}  // namespace qnext::jinja
