// The filters on lists, dicts and whatever can be gone through.
#include <algorithm>

#include "base/error.h"
#include "text/template_arguments.h"
#include "text/template_arithmetic.h"
#include "text/template_attribute_path.h"
#include "text/template_filters.h"
#include "text/template_objects.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_strings.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

// Items beside the keys they are sorted by.
struct Keyed {
  std::vector<Value> keys;
  Value item;
};

bool less_keys(Runtime& runtime, const std::vector<Value>& a, const std::vector<Value>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (a.size() == 1 || !equal(runtime, a[i], b[i])) return less(runtime, a[i], b[i]);
  return false;
}

// Stable, also when reversed, like Python's sorted.
void sort_keyed(Runtime& runtime, std::vector<Keyed>& items, bool reverse) {
  runtime.allocate(items.size() * sizeof(Keyed));
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? less_keys(runtime, b.keys, a.keys) : less_keys(runtime, a.keys, b.keys);
  });
}

Value without_case(Runtime& runtime, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return make_string(runtime, to_lower(value.text()));
}

std::vector<Value> items_of(std::vector<Keyed> keyed) {
  std::vector<Value> out;
  out.reserve(keyed.size());
  for (Keyed& item : keyed) out.push_back(std::move(item.item));
  return out;
}

Value filter_sort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = bound.flag(runtime, 1, false);
  std::vector<AttributePath> paths;
  if (bound.given(2) && bound[2].is_string()) {
    const std::string_view comma = ",";
    for (std::string_view part : split(runtime, bound[2].text(), &comma, -1))
      paths.emplace_back(Value(part));
  } else {
    paths.emplace_back(bound.value_or(2, Value()));
  }
  std::vector<Keyed> keyed;
  for (Value& item : to_vector(runtime, input)) {
    std::vector<Value> keys;
    for (const AttributePath& path : paths)
      keys.push_back(without_case(runtime, path.get(runtime, item), case_sensitive));
    keyed.push_back({std::move(keys), std::move(item)});
  }
  sort_keyed(runtime, keyed, bound.flag(runtime, 0, false));
  return make_sequence(runtime, items_of(std::move(keyed)));
}

Value filter_dictsort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const bool case_sensitive = bound.flag(runtime, 0, false);
  const std::string by = bound.has(1) ? bound.text(1) : "key";
  if (by != "key" && by != "value") fail("dictsort sorts by 'key' or 'value'");
  if (input.is_undefined()) fail_undefined(input);
  if (!input.is_dict()) fail("dictsort needs a dict, not '{}'", input.type_name());
  std::vector<Keyed> keyed;
  for (const auto& [key, value] : input.dict().entries)
    keyed.push_back({{without_case(runtime, by == "key" ? key : value, case_sensitive)},
                     make_tuple(runtime, {key, value})});
  sort_keyed(runtime, keyed, bound.flag(runtime, 2, false));
  return make_sequence(runtime, items_of(std::move(keyed)));
}

Value filter_unique(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(bound.value_or(1, Value()));
  Dict seen;
  std::vector<Value> out;
  for (const Value& item : to_vector(runtime, input)) {
    const Value key = without_case(runtime, path.get(runtime, item), bound.flag(runtime, 0, false));
    if (seen.find(runtime, key)) continue;
    seen.set(runtime, key, Value());
    out.push_back(item);
  }
  return make_generator(runtime, std::move(out));
}

template <bool maximum>
Value filter_extreme(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound(maximum ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(bound.value_or(1, Value()));
  std::optional<Keyed> best;
  for (const Value& item : to_vector(runtime, input)) {
    Value key = without_case(runtime, path.get(runtime, item), bound.flag(runtime, 0, false));
    if (!best || (maximum ? less(runtime, best->keys[0], key) : less(runtime, key, best->keys[0])))
      best = Keyed{{std::move(key)}, item};
  }
  return best ? best->item : Value::undefined("there is no largest or smallest item of none");
}

Value filter_sum(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const AttributePath path(bound.value_or(0, Value()));
  Value total = bound.value_or(1, Value(int64_t{0}));
  if (total.is_string()) fail("sum adds numbers; use join for strings");
  for (const Value& item : to_vector(runtime, input))
    total = arithmetic(runtime, Operator::add, total, path.get(runtime, item));
  return total;
}

Value filter_groupby(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const AttributePath path(bound[0], bound.value_or(1, Value()));
  const bool case_sensitive = bound.flag(runtime, 2, false);
  std::vector<Keyed> keyed;
  for (Value& item : to_vector(runtime, input)) {
    Value key = without_case(runtime, path.get(runtime, item), case_sensitive);
    keyed.push_back({{std::move(key)}, std::move(item)});
  }
  sort_keyed(runtime, keyed, false);
  std::vector<Value> groups;
  for (size_t i = 0; i < keyed.size();) {
    const size_t first = i;
    std::vector<Value> members;
    for (; i < keyed.size() && equal(runtime, keyed[i].keys[0], keyed[first].keys[0]); ++i)
      members.push_back(keyed[i].item);
    // A key equal to no key, not even itself (NaN, say), is a group of its own.
    if (members.empty()) members.push_back(keyed[i++].item);
    const Value grouper = path.get(runtime, members[0]);
    groups.push_back(make_sequence(runtime, {grouper, make_sequence(runtime, std::move(members))},
                                   Sequence::Kind::group));
  }
  return make_sequence(runtime, std::move(groups));
}

Value filter_batch(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t size = bound.integer(0, 1);
  std::vector<Value> out, line;
  for (const Value& item : to_vector(runtime, input)) {
    if (static_cast<int64_t>(line.size()) == size)
      out.push_back(make_sequence(runtime, std::exchange(line, {})));
    line.push_back(item);
  }
  if (!line.empty()) {
    const int64_t missing = size - static_cast<int64_t>(line.size());
    if (bound.given(1) && missing > 0) {
      runtime.allocate(missing, sizeof(Value));
      line.insert(line.end(), static_cast<size_t>(missing), bound[1]);
    }
    out.push_back(make_sequence(runtime, std::move(line)));
  }
  return make_generator(runtime, std::move(out));
}

Value filter_slice(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  const auto items = to_vector(runtime, input);
  const int64_t slices = bound.integer(0, 1);
  if (slices == 0) fail("slice needs a number of slices other than 0");
  std::vector<Value> out;
  if (slices > 0) {
    runtime.allocate(slices, sizeof(Value));
    const auto total = static_cast<int64_t>(items.size());
    auto begin = items.begin();
    for (int64_t i = 0; i < slices; ++i) {
      const bool extra = i < total % slices;
      const auto end = begin + (total / slices + (extra ? 1 : 0));
      std::vector<Value> part(begin, end);
      if (bound.given(1) && !extra) part.push_back(bound[1]);
      out.push_back(make_sequence(runtime, std::move(part)));
      begin = end;
    }
  }
  return make_generator(runtime, std::move(out));
}

Value filter_first(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("first", arguments, {});
  if (auto item = iterate(runtime, input)->next(runtime)) return std::move(*item);
  return Value::undefined("there is no first item of none");
}

Value filter_last(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("last", arguments, {});
  if (input.as<Generator>()) fail("last cannot go through a generator backwards; use list first");
  auto items = to_vector(runtime, input);
  return items.empty() ? Value::undefined("there is no last item of none") : items.back();
}

Value filter_length(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("length", arguments, {});
  return length(runtime, input);
}

Value filter_list(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("list", arguments, {});
  return make_sequence(runtime, to_vector(runtime, input));
}

Value filter_items(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("items", arguments, {});
  std::vector<Value> out;
  if (!input.is_undefined()) {
    if (!input.is_dict()) fail("items needs a dict, not '{}'", input.type_name());
    for (const auto& [key, value] : input.dict().entries)
      out.push_back(make_tuple(runtime, {key, value}));
  }
  return make_generator(runtime, std::move(out));
}

Value filter_join(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const AttributePath path(bound.value_or(1, Value()));
  std::vector<Value> items;
  for (const Value& item : to_vector(runtime, input)) items.push_back(path.get(runtime, item));
  const std::string separator = to_text(runtime, bound.value_or(0, Value("")));
  return make_string(runtime, join(runtime, separator, items, true));
}

Value filter_reverse(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Bound bound("reverse", arguments, {});
  if (input.is_string()) {
    const std::string& text = input.text();
    runtime.allocate(text.size());
    std::string out(text.size(), '\0');
    for (size_t i = 0; i < text.size();) {
      const size_t size = sequence_length(text, i);
      text.copy(out.data() + text.size() - i - size, size, i);
      i += size;
    }
    return make_string(runtime, std::move(out), input.string().safe);
  }
  auto items = to_vector(runtime, input);
  std::reverse(items.begin(), items.end());
  // Python cannot reverse a generator and falls back to a list.
  return input.as<Generator>() ? make_sequence(runtime, std::move(items))
                               : make_generator(runtime, std::move(items));
}

}  // namespace

const std::vector<FilterEntry>& sequence_filters() {
  static const std::vector<FilterEntry> entries{
      {"batch", filter_batch},     {"count", filter_length},      {"dictsort", filter_dictsort},
      {"first", filter_first},     {"groupby", filter_groupby},   {"items", filter_items},
      {"join", filter_join},       {"last", filter_last},         {"length", filter_length},
      {"list", filter_list},       {"max", filter_extreme<true>}, {"min", filter_extreme<false>},
      {"reverse", filter_reverse}, {"slice", filter_slice},       {"sort", filter_sort},
      {"sum", filter_sum},         {"unique", filter_unique}};
  return entries;
}

}  // namespace qnext::jinja
