// The methods of str, list, tuple and dict.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "text/template_arguments.h"
#include "text/template_arithmetic.h"
#include "text/template_format.h"
#include "text/template_lookup.h"
#include "text/template_objects.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_strings.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

using Body = Function::Body;
using Table = std::map<std::string, Body, std::less<>>;

// Text made from a safe string is safe, as methods of Markup give Markup.
Value text_like(Runtime& runtime, const Value& self, std::string_view text) {
  return make_string(runtime, std::string(text), self.string().safe);
}

Value list_of(Runtime& runtime, const Value& self, const std::vector<std::string_view>& pieces) {
  std::vector<Value> items;
  for (std::string_view piece : pieces) items.push_back(text_like(runtime, self, piece));
  return make_sequence(runtime, std::move(items));
}

template <std::string (*convert)(std::string_view)>
Value convert_case(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("this method", arguments, {});
  runtime.allocate(3 * self.text().size());
  return text_like(runtime, self, convert(self.text()));
}

template <Side side>
Value strip_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("strip", arguments, {"chars"});
  std::string_view characters;
  if (bound.given(0)) characters = bound.text(0);
  runtime.scan(self.text().size());
  runtime.step(static_cast<int64_t>(characters.size()));
  return text_like(runtime, self, strip(self.text(), side, bound.given(0) ? &characters : nullptr));
}

template <bool right>
Value split_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("split", arguments, {"sep", "maxsplit"});
  std::string_view separator;
  if (bound.given(0)) separator = bound.text(0);
  const int64_t limit = bound.integer(1, -1);
  return list_of(runtime, self,
                 (right ? split_right : split)(runtime, self.text(),
                                               bound.given(0) ? &separator : nullptr, limit));
}

Value split_lines_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  return list_of(runtime, self, split_lines(runtime, self.text(), bound.flag(runtime, 0, false)));
}

template <bool right>
Value partition(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("partition", arguments, {"sep"}, 1);
  const std::string_view text = self.text(), separator = bound.text(0);
  if (separator.empty()) fail("partition needs a separator that is not empty");
  const size_t hit =
      right ? find_last(runtime, text, separator) : find_first(runtime, text, separator);
  std::vector<std::string_view> parts;
  if (hit == not_found)
    parts = right ? std::vector<std::string_view>{"", "", text}
                  : std::vector<std::string_view>{text, "", ""};
  else
    parts = {text.substr(0, hit), separator, text.substr(hit + separator.size())};
  std::vector<Value> items;
  for (std::string_view part : parts) items.push_back(text_like(runtime, self, part));
  return make_tuple(runtime, std::move(items));
}

// The part of the text that [start, end) of a call selects; the code points before it in `skipped`.
std::optional<std::string_view> selected(const Value& self, const Bound& bound, size_t start_index,
                                         int64_t& skipped) {
  const auto size = static_cast<int64_t>(self.string().length);
  const auto place = [&](size_t index, int64_t absent) {
    const int64_t given = bound.given(index) ? bound.integer(index, 0) : absent;
    return given < 0 ? std::max<int64_t>(given + size, 0) : given;
  };
  const int64_t start = place(start_index, 0);
  const int64_t end = std::min(place(start_index + 1, size), size);
  skipped = start;
  if (start > end) return std::nullopt;
  const std::string_view text = self.text();
  if (start == 0 && end == size) return text;
  const size_t begin = offset_of_code_point(text, static_cast<size_t>(start));
  const std::string_view rest = text.substr(begin);
  return rest.substr(0, offset_of_code_point(rest, static_cast<size_t>(end - start)));
}

template <bool end>
Value affix_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound(end ? "endswith" : "startswith", arguments, {"prefix", "start", "end"}, 1);
  int64_t skipped = 0;
  const auto text = selected(self, bound, 1, skipped);
  const auto matches = [&](const std::string& part) {
    runtime.scan(part.size());
    return text && (end ? text->ends_with(part) : text->starts_with(part));
  };
  if (!bound[0].is_tuple()) return matches(bound.text(0));
  for (const Value& part : bound[0].items()) {
    if (!part.is_string()) fail("startswith and endswith need strings");
    if (matches(part.text())) return true;
  }
  return false;
}

enum class Search { find, index, rfind, rindex, count };

template <Search kind>
Value search_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("find, index and count", arguments, {"sub", "start", "end"}, 1);
  const std::string& part = bound.text(0);
  int64_t skipped = 0;
  const auto text = selected(self, bound, 1, skipped);
  runtime.scan(self.text().size());
  if constexpr (kind == Search::count) return text ? count_parts(runtime, *text, part) : int64_t{0};
  constexpr bool backward = kind == Search::rfind || kind == Search::rindex;
  const size_t hit = !text      ? not_found
                     : backward ? find_last(runtime, *text, part)
                                : find_first(runtime, *text, part);
  if (hit == not_found) {
    if (kind == Search::index || kind == Search::rindex) fail("substring not found");
    return int64_t{-1};
  }
  return skipped + static_cast<int64_t>(count_code_points(text->substr(0, hit)));
}

Value replace_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  std::string to = bound.text(1);
  if (self.string().safe && !bound[1].string().safe) to = escape_html(runtime, to);
  return make_string(runtime,
                     replace(runtime, self.text(), bound.text(0), to, bound.integer(2, -1)),
                     self.string().safe);
}

Value join_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("join", arguments, {"iterable"}, 1);
  std::vector<Value> items = to_vector(runtime, bound[0]);
  if (self.string().safe)
    for (Value& item : items)
      if (!item.is_string() || !item.string().safe)
        item = make_string(runtime, escape_html(runtime, to_text(runtime, item)), true);
  return make_string(runtime, join(runtime, self.text(), items, false), self.string().safe);
}

Value format_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  return make_string(runtime, format_braces(runtime, self.text(), arguments), self.string().safe);
}

Value format_map_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("format_map", arguments, {"mapping"}, 1);
  if (!bound[0].is_dict()) fail("format_map needs a dict");
  Arguments named;
  for (const auto& [key, value] : bound[0].dict().entries)
    if (key.is_string()) named.keywords.emplace_back(key.text(), value);
  return make_string(runtime, format_braces(runtime, self.text(), named), self.string().safe);
}

template <bool suffix>
Value remove_affix(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("removeprefix and removesuffix", arguments, {"affix"}, 1);
  std::string_view text = self.text();
  const std::string& part = bound.text(0);
  if (suffix && text.ends_with(part)) text.remove_suffix(part.size());
  if (!suffix && text.starts_with(part)) text.remove_prefix(part.size());
  return text_like(runtime, self, text);
}

template <char align>
Value justify(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("ljust, rjust and center", arguments, {"width", "fillchar"}, 1);
  Specification specification;
  if (bound.has(1)) {
    specification.fill = bound.text(1);
    if (bound[1].string().length != 1) fail("the fill character must be one character");
  }
  specification.align = align;
  specification.width = bound.integer(0, 0);
  if (align == '^')
    return text_like(runtime, self,
                     center(runtime, self.text(), specification.width, specification.fill));
  return text_like(runtime, self, pad(runtime, self.text(), specification));
}

Value zero_fill(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("zfill", arguments, {"width"}, 1);
  const std::string& text = self.text();
  const int64_t missing = bound.integer(0, 0) - static_cast<int64_t>(self.string().length);
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  return text_like(runtime, self,
                   text.substr(0, sign) + repeat(runtime, "0", missing) + text.substr(sign));
}

Value expand_tabs(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("expandtabs", arguments, {"tabsize"});
  const int64_t size = bound.integer(0, 8);
  std::string out;
  int64_t column = 0;
  const std::string& text = self.text();
  for (size_t i = 0; i < text.size();) {
    const size_t length = sequence_length(text, i);
    if (text[i] == '\t') {
      const int64_t width = size > 0 ? size - column % size : 0;
      out += repeat(runtime, " ", width);
      column += width;
    } else {
      out.append(text, i, length);
      column = text[i] == '\n' || text[i] == '\r' ? 0 : column + 1;
    }
    i += length;
  }
  return text_like(runtime, self, out);
}

// Whether there is text and every code point of it satisfies the predicate.
template <bool (*predicate)(uint32_t)>
Value every(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("this method", arguments, {});
  const std::string& text = self.text();
  runtime.scan(text.size());
  for (size_t i = 0; i < text.size(); i += sequence_length(text, i))
    if (!predicate(decode_at(text, i))) return false;
  return !text.empty();
}

bool is_alphanumeric(uint32_t c) {
  return is_alphabetic(c) || is_numeric(c);
}
bool is_ascii(uint32_t c) {
  return c < 0x80;
}

Value all_ascii(Runtime& runtime, const Value& self, Arguments& arguments) {
  return self.text().empty() ? Value(true) : every<is_ascii>(runtime, self, arguments);
}

Value all_printable(Runtime& runtime, const Value& self, Arguments& arguments) {
  return self.text().empty() ? Value(true) : every<is_printable>(runtime, self, arguments);
}

// islower: some cased letter, and none of the wrong case.
template <bool (*right)(uint32_t), bool (*wrong)(uint32_t)>
Value cased(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("this method", arguments, {});
  const std::string& text = self.text();
  runtime.scan(text.size());
  bool some = false;
  for (size_t i = 0; i < text.size(); i += sequence_length(text, i)) {
    const uint32_t c = decode_at(text, i);
    if (wrong(c) || is_title(c)) return false;
    some = some || right(c);
  }
  return some;
}

Value is_title_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("istitle", arguments, {});
  const std::string& text = self.text();
  runtime.scan(text.size());
  bool some = false, inside = false;
  for (size_t i = 0; i < text.size(); i += sequence_length(text, i)) {
    const uint32_t c = decode_at(text, i);
    const bool upper = is_upper(c) || is_title(c), lower = is_lower(c);
    if ((upper && inside) || (lower && !inside)) return false;
    inside = upper || lower;
    some = some || inside;
  }
  return some;
}

bool is_identifier_part(uint32_t c) {
  return c == '_' || is_alphanumeric(c);
}

Value is_identifier(Runtime& runtime, const Value& self, Arguments& arguments) {
  if (self.text().empty()) return false;
  const uint32_t first = decode_at(self.text(), 0);
  if (first != '_' && !is_alphabetic(first)) return false;
  return every<is_identifier_part>(runtime, self, arguments);
}

Value index_of(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("index", arguments, {"value"}, 1);
  const auto& items = self.items();
  for (size_t i = 0; i < items.size(); ++i)
    if (equal(runtime, items[i], bound[0])) return static_cast<int64_t>(i);
  fail("the value is not in the list");
}

Value count_of(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {"value"}, 1);
  int64_t count = 0;
  for (const Value& item : self.items()) count += equal(runtime, item, bound[0]) ? 1 : 0;
  return count;
}

Value copy_of(Runtime&, const Value& self, Arguments& arguments) {
  const Bound bound("copy", arguments, {});
  return self;  // nothing can change it
}

template <DictView::Kind kind>
Value view(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("this method", arguments, {});
  runtime.allocate(sizeof(DictView));
  return std::make_shared<DictView>(self, kind);
}

Value get_method(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound bound("get", arguments, {"key", "default"}, 1);
  const Value* found = self.dict().find(runtime, bound[0]);
  return found ? *found : bound.value_or(1, Value());
}

const Table& string_methods() {
  static const Table table{
      {"capitalize", convert_case<capitalize>},
      {"casefold", convert_case<to_lower>},
      {"center", justify<'^'>},
      {"count", search_method<Search::count>},
      {"endswith", affix_method<true>},
      {"expandtabs", expand_tabs},
      {"find", search_method<Search::find>},
      {"format", format_method},
      {"format_map", format_map_method},
      {"index", search_method<Search::index>},
      {"isalnum", every<is_alphanumeric>},
      {"isalpha", every<is_alphabetic>},
      {"isascii", all_ascii},
      {"isdecimal", every<is_decimal>},
      {"isdigit", every<is_digit>},
      {"isidentifier", is_identifier},
      {"islower", cased<is_lower, is_upper>},
      {"isnumeric", every<is_numeric>},
      {"isprintable", all_printable},
      {"isspace", every<is_space>},
      {"istitle", is_title_method},
      {"isupper", cased<is_upper, is_lower>},
      {"join", join_method},
      {"ljust", justify<'<'>},
      {"lower", convert_case<to_lower>},
      {"lstrip", strip_method<Side::left>},
      {"partition", partition<false>},
      {"removeprefix", remove_affix<false>},
      {"removesuffix", remove_affix<true>},
      {"replace", replace_method},
      {"rfind", search_method<Search::rfind>},
      {"rindex", search_method<Search::rindex>},
      {"rjust", justify<'>'>},
      {"rpartition", partition<true>},
      {"rsplit", split_method<true>},
      {"rstrip", strip_method<Side::right>},
      {"split", split_method<false>},
      {"splitlines", split_lines_method},
      {"startswith", affix_method<false>},
      {"strip", strip_method<Side::both>},
      {"swapcase", convert_case<swap_case>},
      {"title", convert_case<to_title>},
      {"upper", convert_case<to_upper>},
      {"zfill", zero_fill},
  };
  return table;
}

// null: a method that the immutable sandbox hides.
const Table& list_methods() {
  static const Table table{{"append", nullptr},  {"clear", nullptr},  {"copy", copy_of},
                           {"count", count_of},  {"extend", nullptr}, {"index", index_of},
                           {"insert", nullptr},  {"pop", nullptr},    {"remove", nullptr},
                           {"reverse", nullptr}, {"sort", nullptr}};
  return table;
}

const Table& tuple_methods() {
  static const Table table{{"count", count_of}, {"index", index_of}};
  return table;
}

const Table& dict_methods() {
  static const Table table{{"clear", nullptr},
                           {"copy", copy_of},
                           {"get", get_method},
                           {"items", view<DictView::Kind::items>},
                           {"keys", view<DictView::Kind::keys>},
                           {"pop", nullptr},
                           {"popitem", nullptr},
                           {"setdefault", nullptr},
                           {"update", nullptr},
                           {"values", view<DictView::Kind::values>}};
  return table;
}

const Table* methods_of(const Value& value) {
  if (value.is_string()) return &string_methods();
  if (value.is_dict()) return &dict_methods();
  if (value.is_sequence()) return value.is_list() ? &list_methods() : &tuple_methods();
  return nullptr;
}

}  // namespace

std::optional<Value> find_method(Runtime& runtime, const Value& value, const std::string& name) {
  const Table* table = methods_of(value);
  if (!table) return std::nullopt;
  const auto it = table->find(name);
  if (it == table->end()) return std::nullopt;
  if (!it->second)
    return Value::undefined(
        fmt::format("templates may not change values: '{}' of a '{}' is out of reach", name,
                    value.type_name()));
  runtime.allocate(sizeof(Function));
  return Value(std::make_shared<Function>(name, it->second, value));
}

}  // namespace qnext::jinja
