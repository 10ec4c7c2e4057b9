// JSON values that keep the order of object keys. Parsed with simdjson, written by us.
// Integers and floating-point numbers stay apart, as they do in Python: chat templates print them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace qnext::json {

class Value;
using Array = std::vector<Value>;

// Key/value pairs in the order of insertion. A repeated key overwrites, as in Python's dict.
// Look-up is linear in small objects and through an index in large ones, so that building an
// object of n keys costs O(n log n) whatever the keys are.
class Object {
 public:
  using Entry = std::pair<std::string, Value>;

  Object();
  Object(std::initializer_list<Entry> entries);
  ~Object();
  Object(const Object&);
  Object(Object&&) noexcept;
  Object& operator=(const Object&);
  Object& operator=(Object&&) noexcept;

  const Value* find(std::string_view key) const;  // null where absent
  Value& set(std::string key, Value value);
  size_t size() const;
  bool empty() const;
  std::vector<Entry>::const_iterator begin() const;
  std::vector<Entry>::const_iterator end() const;
  bool operator==(const Object& other) const;

 private:
  std::vector<Entry> entries_;
  std::map<std::string, size_t, std::less<>> index_;  // filled once the object is large
};

class Value {
 public:
  using Storage = std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object>;

  Value() : storage_(nullptr) {}
  Value(std::nullptr_t) : storage_(nullptr) {}
  Value(bool value) : storage_(value) {}
  Value(int value) : storage_(static_cast<int64_t>(value)) {}
  Value(int64_t value) : storage_(value) {}
  Value(double value) : storage_(value) {}
  Value(const char* value) : storage_(std::string(value)) {}
  Value(std::string_view value) : storage_(std::string(value)) {}
  Value(std::string value) : storage_(std::move(value)) {}
  Value(Array value) : storage_(std::move(value)) {}
  Value(Object value) : storage_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(storage_); }
  bool is_bool() const { return std::holds_alternative<bool>(storage_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(storage_); }
  bool is_float() const { return std::holds_alternative<double>(storage_); }
  bool is_number() const { return is_integer() || is_float(); }
  bool is_string() const { return std::holds_alternative<std::string>(storage_); }
  bool is_array() const { return std::holds_alternative<Array>(storage_); }
  bool is_object() const { return std::holds_alternative<Object>(storage_); }

  // Each throws Error("expected X, found Y") where the value is of another kind. as_double takes
  // integers too; as_integer takes a floating-point number that is whole (1e6).
  bool as_bool() const;
  int64_t as_integer() const;
  double as_double() const;
  const std::string& as_string() const;
  const Array& as_array() const;
  const Object& as_object() const;
  Array& as_array();
  Object& as_object();

  // The member of an object; null where this is no object or has no such key.
  const Value* find(std::string_view key) const;

  const Storage& storage() const { return storage_; }
  const char* kind_name() const;  // "null", "boolean", "integer", "number", "string", ...
  bool operator==(const Value& other) const { return storage_ == other.storage_; }

 private:
  Storage storage_;
};

// Defined here because Entry is complete only now.
inline size_t Object::size() const {
  return entries_.size();
}
inline bool Object::empty() const {
  return entries_.empty();
}
inline std::vector<Object::Entry>::const_iterator Object::begin() const {
  return entries_.begin();
}
inline std::vector<Object::Entry>::const_iterator Object::end() const {
  return entries_.end();
}

// Parses one JSON document. `what` names it in errors ("config.json"). Throws Error with the place
// of the fault. Nesting is limited to 512 levels.
Value parse(std::string_view text, std::string_view what);
Value parse_file(const std::string& path);

// indent < 0: one line with ", " and ": " between items, the way Python's json.dumps writes.
// Text stays UTF-8 unless ascii_only, then \uXXXX.
std::string write(const Value& value, int indent = -1, bool ascii_only = false);
void append_string(std::string& out, std::string_view text, bool ascii_only = false);
// The shortest text that reads back as the same double; "1.0" for whole numbers, as in Python.
std::string format_double(double value);

}  // namespace qnext::json
