// Values of the template language: Python's, as far as templates can tell.
//
// Values are immutable and shared, except namespaces, loops and one-shot iterators. An integer is
// 64 bits wide; where Python would grow it, an Error says so. Every container knows how deeply it
// nests and none nests deeper than `maximum_value_depth`, so that walking or freeing a value never
// needs much stack.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"

namespace qnext::jinja {

class Runtime;
class Value;

// As deep as json::parse goes, and the lists and dicts that a template wraps around that.
inline constexpr int maximum_value_depth = 600;

struct String {
  std::string text;
  size_t length = 0;  // code points
  bool safe = false;  // came from |safe or |escape: `+` escapes what it meets, as Markup does
};

struct Undefined {
  std::string problem;  // "'x' is undefined"
};

struct Sequence;
struct Dict;
class Object;

struct None {};

class Value {
 public:
  using StringPointer = std::shared_ptr<const String>;
  using UndefinedPointer = std::shared_ptr<const Undefined>;
  using SequencePointer = std::shared_ptr<const Sequence>;
  using DictPointer = std::shared_ptr<const Dict>;
  using ObjectPointer = std::shared_ptr<Object>;

  Value() : storage_(None{}) {}
  Value(bool value) : storage_(value) {}
  Value(int64_t value) : storage_(value) {}
  Value(double value) : storage_(value) {}
  Value(std::string text, bool safe = false);
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(UndefinedPointer value) : storage_(std::move(value)) {}
  Value(SequencePointer value) : storage_(std::move(value)) {}
  Value(DictPointer value) : storage_(std::move(value)) {}
  Value(ObjectPointer value) : storage_(std::move(value)) {}
  template <typename Derived>
  requires std::is_base_of_v<Object, Derived> Value(std::shared_ptr<Derived> value)
      : storage_(ObjectPointer(std::move(value))) {}

  static Value undefined(std::string problem);

  bool is_none() const { return holds<None>(); }
  bool is_undefined() const { return holds<UndefinedPointer>(); }
  bool is_bool() const { return holds<bool>(); }
  bool is_integer() const { return holds<int64_t>(); }  // a bool is none
  bool is_float() const { return holds<double>(); }
  bool is_number() const { return is_bool() || is_integer() || is_float(); }
  bool is_string() const { return holds<StringPointer>(); }
  bool is_dict() const { return holds<DictPointer>(); }
  bool is_list() const;
  bool is_tuple() const;
  bool is_sequence() const { return holds<SequencePointer>(); }  // list or tuple
  bool is_object() const { return holds<ObjectPointer>(); }

  // Each needs the kind it names.
  bool boolean() const { return std::get<bool>(storage_); }
  double floating() const { return std::get<double>(storage_); }
  const String& string() const { return *std::get<StringPointer>(storage_); }
  const std::string& text() const { return string().text; }
  const Undefined& undefined() const { return *std::get<UndefinedPointer>(storage_); }
  const Sequence& sequence() const { return *std::get<SequencePointer>(storage_); }
  const std::vector<Value>& items() const;
  const Dict& dict() const { return *std::get<DictPointer>(storage_); }
  Object& object() const { return *std::get<ObjectPointer>(storage_); }
  const ObjectPointer& object_pointer() const { return std::get<ObjectPointer>(storage_); }
  // An integer or a bool as Python's int.
  std::optional<int64_t> integer() const;
  // The object as one of the kind T; null where it is another.
  template <typename T>
  T* as() const {
    const auto* pointer = std::get_if<ObjectPointer>(&storage_);
    return pointer ? dynamic_cast<T*>(pointer->get()) : nullptr;
  }

  bool is_same(const Value& other) const;  // Python's `is`
  int depth() const;                       // 0 for a scalar
  std::string type_name() const;           // "str", "dict", ... as Python calls it

 private:
  template <typename T>
  bool holds() const {
    return std::holds_alternative<T>(storage_);
  }
  std::variant<None, bool, int64_t, double, UndefinedPointer, StringPointer, SequencePointer,
               DictPointer, ObjectPointer>
      storage_;
};

struct Sequence {
  enum class Kind { list, tuple, group };  // a group is groupby's (grouper, list)
  std::vector<Value> items;
  Kind kind = Kind::list;
  int depth = 1;
};

// Insertion-ordered; keys are any hashable values, where 1, 1.0 and True are one key.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_multimap<uint64_t, size_t> index;  // hash -> entry, once the dict is large
  int depth = 1;

  const Value* find(Runtime& runtime, const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(Runtime& runtime, Value key, Value value);

 private:
  std::optional<size_t> position(Runtime& runtime, const Value& key, uint64_t hash) const;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

// Yields the items of an iterable one after the other.
class Cursor {
 public:
  virtual ~Cursor() = default;
  virtual std::optional<Value> next(Runtime& runtime) = 0;
};

// What is neither a scalar nor a plain container: functions, loops, namespaces, views, ...
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string type_name() const = 0;
  virtual std::string repr(Runtime& runtime) const;
  virtual bool truth(Runtime&) { return true; }
  virtual int depth() const { return 0; }
  virtual std::optional<Value> attribute(Runtime&, const std::string&) { return std::nullopt; }
  virtual std::optional<Value> item(Runtime&, const Value&) { return std::nullopt; }
  virtual bool callable() const { return false; }
  virtual Value call(Runtime& runtime, Arguments& arguments);
  virtual bool iterable() const { return false; }
  virtual std::unique_ptr<Cursor> iterate(Runtime& runtime);
  virtual std::optional<int64_t> length(Runtime&) { return std::nullopt; }
};

// Builders. Each throws Error where the result would nest too deeply or the budget is spent.
Value make_sequence(Runtime& runtime, std::vector<Value> items,
                    Sequence::Kind kind = Sequence::Kind::list);
inline Value make_tuple(Runtime& runtime, std::vector<Value> items) {
  return make_sequence(runtime, std::move(items), Sequence::Kind::tuple);
}
Value make_dict(Runtime& runtime, Dict dict);
Value make_string(Runtime& runtime, std::string text, bool safe = false);
Value from_json(Runtime& runtime, const json::Value& value);

}  // namespace qnext::jinja
