#include "text/template_lookup.h"

#include <limits>

#include "base/error.h"
#include "text/template_objects.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

std::string describe(const Value& value) {
  if (value.is_none()) return "'None'";
  return "'" + value.type_name() + " object'";
}

Value missing_attribute(Runtime& runtime, const Value& value, const std::string& name) {
  runtime.allocate(name.size());
  return Value::undefined(fmt::format("{} has no attribute '{}'", describe(value), name));
}

Value missing_item(Runtime& runtime, const Value& value, const Value& key) {
  if (key.is_string()) return missing_attribute(runtime, value, key.text());
  if (const auto index = key.integer())
    return Value::undefined(fmt::format("{} has no element {}", describe(value), *index));
  return Value::undefined(
      fmt::format("{} has no element of kind '{}'", describe(value), key.type_name()));
}

// The attribute proper, as Python's getattr finds it.
std::optional<Value> own_attribute(Runtime& runtime, const Value& value, const std::string& name) {
  if (name.starts_with("__")) {
    // Python has such a thing nearly everywhere; the sandbox hides it.
    return std::nullopt;
  }
  if (value.is_object()) return value.object().attribute(runtime, name);
  if (value.is_sequence() && value.sequence().kind == Sequence::Kind::group) {
    if (name == "grouper") return value.items()[0];
    if (name == "list") return value.items()[1];
  }
  return find_method(runtime, value, name);
}

std::optional<Value> own_item(Runtime& runtime, const Value& value, const Value& key) {
  if (value.is_dict()) {
    if (key.is_sequence() && key.is_list()) return std::nullopt;
    if (key.is_dict()) return std::nullopt;
    const Value* found = value.dict().find(runtime, key);
    return found ? std::optional(*found) : std::nullopt;
  }
  if (value.is_object()) return value.object().item(runtime, key);
  const auto integer = key.integer();
  if (!integer || (!value.is_sequence() && !value.is_string())) return std::nullopt;
  const int64_t size = length(runtime, value);
  const int64_t index = *integer < 0 ? *integer + size : *integer;
  if (index < 0 || index >= size) return std::nullopt;
  if (value.is_sequence()) return value.items()[static_cast<size_t>(index)];
  const String& string = value.string();
  if (string.length == string.text.size())  // ASCII
    return make_string(runtime, std::string(1, string.text[static_cast<size_t>(index)]),
                       string.safe);
  runtime.scan(string.text.size());
  const size_t offset = offset_of_code_point(string.text, static_cast<size_t>(index));
  return make_string(runtime, string.text.substr(offset, sequence_length(string.text, offset)),
                     string.safe);
}

struct Bounds {
  int64_t start, stop, step, count;
};

std::optional<int64_t> bound(const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (const auto integer = value.integer()) return integer;
  if (value.is_undefined()) fail_undefined(value);
  fail("a slice needs integers, not '{}'", value.type_name());
}

Bounds resolve(int64_t size, const Value& start, const Value& stop, const Value& step) {
  const int64_t stride = bound(step).value_or(1);
  if (stride == 0) fail("a slice needs a step other than 0");
  const bool forward = stride > 0;
  const auto place = [&](const Value& value, int64_t absent) {
    const auto given = bound(value);
    if (!given) return absent;
    const int64_t index = *given < 0 ? *given + size : *given;
    return std::clamp(index, forward ? int64_t{0} : int64_t{-1}, forward ? size : size - 1);
  };
  const int64_t first = place(start, forward ? 0 : size - 1);
  const int64_t last = place(stop, forward ? size : -1);
  const int64_t span = forward ? last - first : first - last;
  // The magnitude of the smallest integer does not fit; one step of it is as far as any goes.
  const int64_t width = forward ? stride
                        : stride == std::numeric_limits<int64_t>::min()
                            ? std::numeric_limits<int64_t>::max()
                            : -stride;
  return {first, last, stride, span <= 0 ? 0 : (span - 1) / width + 1};
}

Value slice_string(Runtime& runtime, const String& string, const Bounds& bounds) {
  const std::string& text = string.text;
  runtime.allocate(text.size());
  if (bounds.step == 1) {
    const size_t begin = offset_of_code_point(text, static_cast<size_t>(bounds.start));
    const std::string_view rest = std::string_view(text).substr(begin);
    const size_t size = offset_of_code_point(rest, static_cast<size_t>(bounds.count));
    return make_string(runtime, std::string(rest.substr(0, size)), string.safe);
  }
  std::vector<size_t> offsets;
  offsets.reserve(string.length);
  runtime.allocate(string.length * sizeof(size_t));
  for (size_t i = 0; i < text.size(); i += sequence_length(text, i)) offsets.push_back(i);
  std::string out;
  for (int64_t i = 0; i < bounds.count; ++i) {
    const size_t offset = offsets[static_cast<size_t>(bounds.start + i * bounds.step)];
    out.append(text, offset, sequence_length(text, offset));
  }
  return make_string(runtime, std::move(out), string.safe);
}

}  // namespace

Value get_attribute(Runtime& runtime, const Value& value, const std::string& name) {
  if (value.is_undefined()) fail_undefined(value);
  if (auto own = own_attribute(runtime, value, name)) return std::move(*own);
  if (value.is_dict()) {
    if (const Value* found = value.dict().find(name)) return *found;
  }
  return missing_attribute(runtime, value, name);
}

Value get_item(Runtime& runtime, const Value& value, const Value& key) {
  if (value.is_undefined()) fail_undefined(value);
  if (auto own = own_item(runtime, value, key)) return std::move(*own);
  if (key.is_string())
    if (auto attribute = own_attribute(runtime, value, key.text())) return std::move(*attribute);
  return missing_item(runtime, value, key);
}

Value get_slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
                const Value& step) {
  if (value.is_undefined()) fail_undefined(value);
  const auto* range = value.as<Range>();
  if (!value.is_string() && !value.is_sequence() && !range)
    return missing_item(runtime, value, Value());
  const Bounds bounds = resolve(length(runtime, value), start, stop, step);
  if (value.is_string()) return slice_string(runtime, value.string(), bounds);
  if (range) return std::make_shared<Range>(range->slice(bounds.start, bounds.stop, bounds.step));
  std::vector<Value> items;
  runtime.allocate(bounds.count, sizeof(Value));
  for (int64_t i = 0; i < bounds.count; ++i)
    items.push_back(value.items()[static_cast<size_t>(bounds.start + i * bounds.step)]);
  return make_sequence(runtime, std::move(items),
                       value.is_list() ? Sequence::Kind::list : Sequence::Kind::tuple);
}

}  // namespace qnext::jinja
