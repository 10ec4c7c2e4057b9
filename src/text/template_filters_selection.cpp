// map, select, reject and the attribute paths that filters take.
#include "base/error.h"
#include "text/template_attribute_path.h"
#include "text/template_filters.h"
#include "text/template_lookup.h"
#include "text/template_objects.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"

namespace qnext::jinja {

AttributePath::AttributePath(const Value& attribute, Value fallback)
    : fallback_(std::move(fallback)) {
  if (attribute.is_none()) return;
  if (!attribute.is_string()) {
    parts_.push_back(attribute);
    return;
  }
  const std::string& text = attribute.text();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('.', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const bool digits = !part.empty() && part.size() < 18 &&
                        part.find_first_not_of("0123456789") == std::string::npos;
    parts_.push_back(digits ? Value(int64_t{std::stoll(part)}) : Value(part));
    begin = end + 1;
  }
}

Value AttributePath::get(Runtime& runtime, const Value& item) const {
  Value value = item;
  for (const Value& part : parts_) {
    runtime.step();
    value = get_item(runtime, value, part);
    if (value.is_undefined() && !fallback_.is_none()) value = fallback_;
  }
  return value;
}

namespace {

Value filter_map(Runtime& runtime, const Value& input, const Arguments& arguments) {
  std::vector<Value> out;
  if (!truth(runtime, input)) return make_generator(runtime, {});
  const auto& keywords = arguments.keywords;
  if (arguments.positional.empty()) {
    Value attribute, fallback;
    for (const auto& [name, value] : keywords)
      if (name == "attribute")
        attribute = value;
      else if (name == "default")
        fallback = value;
      else
        fail("map has no parameter '{}'", name);
    if (attribute.is_none()) fail("map needs a filter's name or an attribute");
    const AttributePath path(attribute, fallback);
    for (const Value& item : to_vector(runtime, input)) out.push_back(path.get(runtime, item));
    return make_generator(runtime, std::move(out));
  }
  if (!arguments.positional[0].is_string()) fail("map needs the name of a filter");
  const auto filter = require_filter(arguments.positional[0].text());
  Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()}, keywords};
  runtime.check_stack();
  for (const Value& item : to_vector(runtime, input)) out.push_back(filter(runtime, item, rest));
  return make_generator(runtime, std::move(out));
}

template <bool keep, bool by_attribute>
Value filter_select(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!truth(runtime, input)) return make_generator(runtime, {});
  const auto& positional = arguments.positional;
  const size_t first = by_attribute ? 1 : 0;
  if (positional.size() < first) fail("selectattr and rejectattr need an attribute");
  const AttributePath path(by_attribute ? positional[0] : Value());
  TestFunction test = nullptr;
  Arguments rest;
  if (positional.size() > first) {
    if (!positional[first].is_string()) fail("select and reject need the name of a test");
    test = require_test(positional[first].text());
    rest.positional.assign(positional.begin() + static_cast<std::ptrdiff_t>(first) + 1,
                           positional.end());
    rest.keywords = arguments.keywords;
  }
  std::vector<Value> out;
  for (const Value& item : to_vector(runtime, input)) {
    const Value value = path.get(runtime, item);
    if ((test ? test(runtime, value, rest) : truth(runtime, value)) == keep) out.push_back(item);
  }
  return make_generator(runtime, std::move(out));
}

}  // namespace

const std::vector<FilterEntry>& selection_filters() {
  static const std::vector<FilterEntry> entries{{"map", filter_map},
                                                {"select", filter_select<true, false>},
                                                {"reject", filter_select<false, false>},
                                                {"selectattr", filter_select<true, true>},
                                                {"rejectattr", filter_select<false, true>}};
  return entries;
}

}  // namespace qnext::jinja
