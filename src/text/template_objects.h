// The kinds of object that templates meet, apart from macros and loops.
#pragma once

#include <functional>

#include "text/template_value.h"

namespace qnext::jinja {

// namespace(a=1): the one thing whose attributes `set` may change.
class Namespace : public Object {
 public:
  std::vector<std::pair<std::string, Value>> attributes;

  std::string type_name() const override { return "Namespace"; }
  std::string repr(Runtime& runtime) const override;
  std::optional<Value> attribute(Runtime&, const std::string& name) override;
  std::optional<Value> item(Runtime&, const Value& key) override;
  void set(Runtime& runtime, const std::string& name, Value value);
};

// Bounds and step lie within 2^42 of zero, so that no sum of them overflows.
class Range : public Object {
 public:
  Range(int64_t start, int64_t stop, int64_t step) : start_(start), stop_(stop), step_(step) {}

  int64_t size() const;
  int64_t at(int64_t index) const { return start_ + index * step_; }
  bool equals(const Range& other) const;
  Range slice(int64_t start, int64_t stop, int64_t step) const;

  std::string type_name() const override { return "range"; }
  std::string repr(Runtime& runtime) const override;
  bool truth(Runtime&) override { return size() > 0; }
  std::optional<Value> item(Runtime&, const Value& key) override;
  bool iterable() const override { return true; }
  std::unique_ptr<Cursor> iterate(Runtime& runtime) override;
  std::optional<int64_t> length(Runtime&) override { return size(); }

 private:
  int64_t start_, stop_, step_;
};

// What map, select, batch, ... give: it can be gone through once.
class Generator : public Object {
 public:
  explicit Generator(std::vector<Value> items);

  std::string type_name() const override { return "generator"; }
  int depth() const override { return depth_; }
  bool iterable() const override { return true; }
  std::unique_ptr<Cursor> iterate(Runtime& runtime) override;

 private:
  struct State {
    std::vector<Value> items;
    size_t next = 0;
  };
  class View;
  std::shared_ptr<State> state_;
  int depth_ = 1;
};

// dict.keys(), dict.values(), dict.items().
class DictView : public Object {
 public:
  enum class Kind { keys, values, items };
  DictView(Value dict, Kind kind) : dict_(std::move(dict)), kind_(kind) {}

  Value list(Runtime& runtime) const;
  std::string type_name() const override;
  std::string repr(Runtime& runtime) const override;
  bool truth(Runtime&) override { return !dict_.dict().entries.empty(); }
  int depth() const override { return dict_.depth() + 2; }
  bool iterable() const override { return true; }
  std::unique_ptr<Cursor> iterate(Runtime& runtime) override;
  std::optional<int64_t> length(Runtime&) override {
    return static_cast<int64_t>(dict_.dict().entries.size());
  }

 private:
  Value dict_;
  Kind kind_;
};

// A function of ours: a global, or a method bound to the value it was looked up on.
class Function : public Object {
 public:
  using Body = Value (*)(Runtime& runtime, const Value& self, Arguments& arguments);
  Function(std::string name, Body body, Value self = {})
      : name_(std::move(name)), body_(body), self_(std::move(self)) {}

  std::string type_name() const override { return "builtin_function_or_method"; }
  std::string repr(Runtime&) const override { return "<function " + name_ + ">"; }
  int depth() const override { return self_.depth() + 1; }
  bool callable() const override { return true; }
  Value call(Runtime& runtime, Arguments& arguments) override {
    return body_(runtime, self_, arguments);
  }

 private:
  std::string name_;
  Body body_;
  Value self_;
};

// cycler('a', 'b'): next() goes round.
class Cycler : public Object {
 public:
  explicit Cycler(Value items) : items_(std::move(items)) {}
  std::string type_name() const override { return "Cycler"; }
  int depth() const override { return items_.depth() + 1; }
  std::optional<Value> attribute(Runtime&, const std::string& name) override;

 private:
  class Step;
  Value items_;
  std::shared_ptr<size_t> position_ = std::make_shared<size_t>(0);
};

// joiner(', '): empty the first time it is called, then the separator.
class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string type_name() const override { return "Joiner"; }
  int depth() const override { return separator_.depth() + 1; }
  bool callable() const override { return true; }
  Value call(Runtime&, Arguments&) override {
    return std::exchange(used_, true) ? separator_ : Value("");
  }

 private:
  Value separator_;
  bool used_ = false;
};

Value make_generator(Runtime& runtime, std::vector<Value> items);

}  // namespace qnext::jinja
