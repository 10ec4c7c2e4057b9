#include "text/template_value.h"

#include "base/error.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"
#include "text/template_unicode.h"

namespace qnext::jinja {

namespace {

constexpr size_t index_threshold = 12;  // below it a scan beats the index

void check_depth(int depth) {
  if (depth > maximum_value_depth)
    fail("lists and dicts nest more than {} levels deep", maximum_value_depth);
}

std::shared_ptr<const String> build_string(std::string text, bool safe) {
  auto string = std::make_shared<String>();
  string->length = count_code_points(text);
  string->text = std::move(text);
  string->safe = safe;
  return string;
}

}  // namespace

Value::Value(std::string text, bool safe) : storage_(build_string(std::move(text), safe)) {}

Value Value::undefined(std::string problem) {
  auto undefined = std::make_shared<Undefined>();
  undefined->problem = std::move(problem);
  return UndefinedPointer(std::move(undefined));
}

bool Value::is_list() const {
  return is_sequence() && sequence().kind == Sequence::Kind::list;
}
bool Value::is_tuple() const {
  return is_sequence() && sequence().kind != Sequence::Kind::list;
}

const std::vector<Value>& Value::items() const {
  return sequence().items;
}

std::optional<int64_t> Value::integer() const {
  if (const auto* value = std::get_if<int64_t>(&storage_)) return *value;
  if (const auto* value = std::get_if<bool>(&storage_)) return *value ? 1 : 0;
  return std::nullopt;
}

bool Value::is_same(const Value& other) const {
  if (storage_.index() != other.storage_.index()) return false;
  if (is_none()) return true;
  if (is_bool()) return boolean() == other.boolean();
  // Python interns small integers and short literals; equal scalars are taken as one.
  if (is_integer()) return integer() == other.integer();
  if (is_float()) return floating() == other.floating();
  if (is_string()) return text() == other.text();
  if (is_sequence()) return &sequence() == &other.sequence();
  if (is_dict()) return &dict() == &other.dict();
  if (is_object()) return &object() == &other.object();
  return &undefined() == &other.undefined();
}

int Value::depth() const {
  if (is_sequence()) return sequence().depth;
  if (is_dict()) return dict().depth;
  return is_object() ? object().depth() : 0;
}

std::string Value::type_name() const {
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_integer()) return "int";
  if (is_float()) return "float";
  if (is_string()) return string().safe ? "Markup" : "str";
  if (is_sequence()) return is_list() ? "list" : "tuple";
  if (is_dict()) return "dict";
  return is_object() ? object().type_name() : "Undefined";
}

std::optional<size_t> Dict::position(Runtime& runtime, const Value& key, uint64_t hash) const {
  if (entries.size() < index_threshold) {
    for (size_t i = 0; i < entries.size(); ++i)
      if (equal(runtime, entries[i].first, key)) return i;
    return std::nullopt;
  }
  const auto [begin, end] = index.equal_range(hash);
  for (auto it = begin; it != end; ++it)
    if (equal(runtime, entries[it->second].first, key)) return it->second;
  return std::nullopt;
}

const Value* Dict::find(Runtime& runtime, const Value& key) const {
  const auto place = position(runtime, key, hash_value(runtime, key));
  return place ? &entries[*place].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  const auto matches = [&](const Value& name) { return name.is_string() && name.text() == key; };
  if (entries.size() >= index_threshold) {
    const auto [begin, end] = index.equal_range(hash_text(key));
    for (auto it = begin; it != end; ++it)
      if (matches(entries[it->second].first)) return &entries[it->second].second;
    return nullptr;
  }
  for (const auto& [name, value] : entries)
    if (matches(name)) return &value;
  return nullptr;
}

void Dict::set(Runtime& runtime, Value key, Value value) {
  const uint64_t hash = hash_value(runtime, key);
  depth = std::max(depth, 1 + std::max(key.depth(), value.depth()));
  if (const auto place = position(runtime, key, hash)) {
    entries[*place].second = std::move(value);
    return;
  }
  runtime.allocate(2 * sizeof(Value) + 32);
  entries.emplace_back(std::move(key), std::move(value));
  if (entries.size() == index_threshold) {
    for (size_t i = 0; i < entries.size(); ++i)
      index.emplace(hash_value(runtime, entries[i].first), i);
  } else if (entries.size() > index_threshold) {
    index.emplace(hash, entries.size() - 1);
  }
}

std::string Object::repr(Runtime&) const {
  return "<" + type_name() + " object>";
}

Value Object::call(Runtime&, Arguments&) {
  fail("'{}' object is not callable", type_name());
}

std::unique_ptr<Cursor> Object::iterate(Runtime&) {
  fail("'{}' object is not iterable", type_name());
}

Value make_sequence(Runtime& runtime, std::vector<Value> items, Sequence::Kind kind) {
  runtime.allocate(sizeof(Sequence) + items.size() * sizeof(Value));
  auto sequence = std::make_shared<Sequence>();
  for (const Value& item : items) sequence->depth = std::max(sequence->depth, 1 + item.depth());
  check_depth(sequence->depth);
  sequence->items = std::move(items);
  sequence->kind = kind;
  return Value::SequencePointer(std::move(sequence));
}

Value make_dict(Runtime& runtime, Dict dict) {
  runtime.allocate(sizeof(Dict));
  check_depth(dict.depth);
  return Value::DictPointer(std::make_shared<Dict>(std::move(dict)));
}

Value make_string(Runtime& runtime, std::string text, bool safe) {
  runtime.allocate(sizeof(String) + text.size());
  return Value(std::move(text), safe);
}

Value from_json(Runtime& runtime, const json::Value& value) {
  runtime.step();
  if (value.is_bool()) return value.as_bool();
  if (value.is_integer()) return value.as_integer();
  if (value.is_float()) return value.as_double();
  if (value.is_string()) {
    const std::string& text = value.as_string();
    return make_string(runtime, is_valid_utf8(text) ? text : repair_utf8(text));
  }
  if (value.is_array()) {
    std::vector<Value> items;
    items.reserve(value.as_array().size());
    for (const json::Value& item : value.as_array()) items.push_back(from_json(runtime, item));
    return make_sequence(runtime, std::move(items));
  }
  if (value.is_object()) {
    Dict dict;
    for (const auto& [key, item] : value.as_object())
      dict.set(runtime, make_string(runtime, is_valid_utf8(key) ? key : repair_utf8(key)),
               from_json(runtime, item));
    return make_dict(runtime, std::move(dict));
  }
  return {};
}

}  // namespace qnext::jinja
