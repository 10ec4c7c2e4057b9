#include "text/template_operations.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "text/template_objects.h"
#include "text/template_runtime.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

// Exact for every integer of 64 bits and every double: the mantissa has 64 bits on x86.
long double number(const Value& value) {
  if (value.is_float()) return value.floating();
  return static_cast<long double>(*value.integer());
}

bool equal_items(Runtime& runtime, const std::vector<Value>& left,
                 const std::vector<Value>& right) {
  if (left.size() != right.size()) return false;
  for (size_t i = 0; i < left.size(); ++i)
    if (!equal(runtime, left[i], right[i])) return false;
  return true;
}

bool equal_dicts(Runtime& runtime, const Dict& left, const Dict& right) {
  if (left.entries.size() != right.entries.size()) return false;
  for (const auto& [key, value] : left.entries) {
    const Value* twin = right.find(runtime, key);
    if (!twin || !equal(runtime, value, *twin)) return false;
  }
  return true;
}

[[noreturn]] void fail_order(const Value& left, const Value& right) {
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  fail("'{}' and '{}' have no order", left.type_name(), right.type_name());
}

// Applies `decide` to the first pair that differs, or to the lengths.
template <typename Decide, typename Lengths>
bool order_items(Runtime& runtime, const Value& left, const Value& right, Decide&& decide,
                 Lengths&& lengths) {
  if (left.is_list() != right.is_list()) fail_order(left, right);
  const auto& a = left.items();
  const auto& b = right.items();
  for (size_t i = 0; i < a.size() && i < b.size(); ++i)
    if (!equal(runtime, a[i], b[i])) return decide(a[i], b[i]);
  return lengths(a.size(), b.size());
}

uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

class ItemsCursor : public Cursor {
 public:
  explicit ItemsCursor(Value sequence) : sequence_(std::move(sequence)) {}
  std::optional<Value> next(Runtime&) override {
    if (next_ == sequence_.items().size()) return std::nullopt;
    return sequence_.items()[next_++];
  }

 private:
  Value sequence_;
  size_t next_ = 0;
};

class KeysCursor : public Cursor {
 public:
  explicit KeysCursor(Value dict) : dict_(std::move(dict)) {}
  std::optional<Value> next(Runtime&) override {
    if (next_ == dict_.dict().entries.size()) return std::nullopt;
    return dict_.dict().entries[next_++].first;
  }

 private:
  Value dict_;
  size_t next_ = 0;
};

class CharactersCursor : public Cursor {
 public:
  explicit CharactersCursor(Value string) : string_(std::move(string)) {}
  std::optional<Value> next(Runtime& runtime) override {
    const std::string& text = string_.text();
    if (offset_ >= text.size()) return std::nullopt;
    const size_t begin = offset_;
    offset_ += sequence_length(text, offset_);
    return make_string(runtime, text.substr(begin, offset_ - begin));
  }

 private:
  Value string_;
  size_t offset_ = 0;
};

class EmptyCursor : public Cursor {
 public:
  std::optional<Value> next(Runtime&) override { return std::nullopt; }
};

}  // namespace

void fail_undefined(const Value& value) {
  fail("{}", value.undefined().problem);
}

bool truth(Runtime& runtime, const Value& value) {
  if (value.is_bool()) return value.boolean();
  if (value.is_integer()) return *value.integer() != 0;
  if (value.is_float()) return value.floating() != 0;
  if (value.is_string()) return !value.text().empty();
  if (value.is_sequence()) return !value.items().empty();
  if (value.is_dict()) return !value.dict().entries.empty();
  return value.is_object() && value.object().truth(runtime);
}

bool equal(Runtime& runtime, const Value& left, const Value& right) {
  runtime.step();
  if (left.is_number() && right.is_number()) return number(left) == number(right);
  if (left.is_string() && right.is_string()) {
    runtime.scan(std::min(left.text().size(), right.text().size()));
    return left.text() == right.text();
  }
  if (left.is_undefined() || right.is_undefined())
    return left.is_undefined() && right.is_undefined();
  if (left.is_same(right)) return true;
  if (left.is_sequence() && right.is_sequence()) {
    runtime.check_stack();
    return left.is_list() == right.is_list() && equal_items(runtime, left.items(), right.items());
  }
  if (left.is_dict() && right.is_dict()) {
    runtime.check_stack();
    return equal_dicts(runtime, left.dict(), right.dict());
  }
  const auto* range = left.as<Range>();
  const auto* other = right.as<Range>();
  return range && other && range->equals(*other);
}

bool less(Runtime& runtime, const Value& left, const Value& right) {
  runtime.step();
  if (left.is_number() && right.is_number()) return number(left) < number(right);
  if (left.is_string() && right.is_string()) {
    runtime.scan(std::min(left.text().size(), right.text().size()));
    return left.text() < right.text();  // bytes of UTF-8 order as code points do
  }
  if (!left.is_sequence() || !right.is_sequence()) fail_order(left, right);
  runtime.check_stack();
  return order_items(
      runtime, left, right, [&](const Value& a, const Value& b) { return less(runtime, a, b); },
      [](size_t a, size_t b) { return a < b; });
}

bool less_equal(Runtime& runtime, const Value& left, const Value& right) {
  runtime.step();
  if (left.is_number() && right.is_number()) return number(left) <= number(right);
  if (left.is_string() && right.is_string()) {
    runtime.scan(std::min(left.text().size(), right.text().size()));
    return left.text() <= right.text();
  }
  if (!left.is_sequence() || !right.is_sequence()) fail_order(left, right);
  runtime.check_stack();
  return order_items(
      runtime, left, right,
      [&](const Value& a, const Value& b) { return less_equal(runtime, a, b); },
      [](size_t a, size_t b) { return a <= b; });
}

uint64_t hash_text(std::string_view text) {
  return std::hash<std::string_view>{}(text);
}

uint64_t hash_value(Runtime& runtime, const Value& value) {
  runtime.step();
  if (value.is_string()) {
    runtime.scan(value.text().size());
    return hash_text(value.text());
  }
  if (const auto integer = value.integer()) return mix(static_cast<uint64_t>(*integer));
  if (value.is_float()) {
    const double x = value.floating();
    // A whole number hashes as the integer it equals.
    if (std::trunc(x) == x && std::abs(x) < 9.2e18)
      return mix(static_cast<uint64_t>(static_cast<int64_t>(x)));
    return mix(std::hash<double>{}(x));
  }
  if (value.is_none()) return 1;
  if (value.is_undefined()) return 2;
  if (value.is_tuple()) {
    runtime.check_stack();
    uint64_t hash = 3;
    for (const Value& item : value.items()) hash = mix(hash ^ hash_value(runtime, item));
    return hash;
  }
  if (value.is_object() && !value.as<DictView>())
    return mix(reinterpret_cast<uintptr_t>(&value.object()));
  fail("a '{}' cannot be a key of a dict", value.type_name());
}

bool contains(Runtime& runtime, const Value& container, const Value& needle) {
  if (container.is_string()) {
    if (needle.is_undefined()) fail_undefined(needle);
    if (!needle.is_string())
      fail("'in' of a string needs a string on the left, not '{}'", needle.type_name());
    const std::string& text = container.text();
    const std::string& part = needle.text();
    runtime.scan(text.size());
    return memmem(text.data(), text.size(), part.data(), part.size()) != nullptr;
  }
  if (container.is_dict()) return container.dict().find(runtime, needle) != nullptr;
  const auto cursor = iterate(runtime, container);
  while (const auto item = cursor->next(runtime))
    if (equal(runtime, *item, needle)) return true;
  return false;
}

bool is_iterable(const Value& value) {
  return value.is_string() || value.is_sequence() || value.is_dict() || value.is_undefined() ||
         (value.is_object() && value.object().iterable());
}

std::unique_ptr<Cursor> iterate(Runtime& runtime, const Value& value) {
  if (value.is_sequence()) return std::make_unique<ItemsCursor>(value);
  if (value.is_dict()) return std::make_unique<KeysCursor>(value);
  if (value.is_string()) return std::make_unique<CharactersCursor>(value);
  if (value.is_undefined()) return std::make_unique<EmptyCursor>();
  if (value.is_object()) return value.object().iterate(runtime);
  fail("'{}' object is not iterable", value.type_name());
}

std::vector<Value> to_vector(Runtime& runtime, const Value& value) {
  if (value.is_sequence()) {
    runtime.allocate(value.items().size() * sizeof(Value));
    return value.items();
  }
  std::vector<Value> items;
  const auto cursor = iterate(runtime, value);
  while (auto item = cursor->next(runtime)) {
    runtime.step();
    runtime.allocate(sizeof(Value));
    items.push_back(std::move(*item));
  }
  return items;
}

std::optional<int64_t> length_if_sized(Runtime& runtime, const Value& value) {
  if (value.is_string()) return static_cast<int64_t>(value.string().length);
  if (value.is_sequence()) return static_cast<int64_t>(value.items().size());
  if (value.is_dict()) return static_cast<int64_t>(value.dict().entries.size());
  if (value.is_undefined()) return 0;
  return value.is_object() ? value.object().length(runtime) : std::nullopt;
}

int64_t length(Runtime& runtime, const Value& value) {
  const auto count = length_if_sized(runtime, value);
  if (!count) fail("object of type '{}' has no length", value.type_name());
  return *count;
}

}  // namespace qnext::jinja
