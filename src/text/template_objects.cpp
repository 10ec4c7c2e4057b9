#include "text/template_objects.h"

#include "base/error.h"
#include "text/template_operations.h"
#include "text/template_runtime.h"

namespace qnext::jinja {

std::string Namespace::repr(Runtime& runtime) const {
  runtime.check_stack();  // a namespace may hold itself
  std::string out = "<Namespace {";
  for (const auto& [name, value] : attributes) {
    if (out.back() != '{') out += ", ";
    append_repr(runtime, out, Value(name));
    out += ": ";
    append_repr(runtime, out, value);
  }
  return out + "}>";
}

std::optional<Value> Namespace::attribute(Runtime&, const std::string& name) {
  for (const auto& [key, value] : attributes)
    if (key == name) return value;
  return std::nullopt;
}

std::optional<Value> Namespace::item(Runtime&, const Value&) {
  return std::nullopt;  // the attributes are no items: ns['a'] finds them as attributes
}

void Namespace::set(Runtime& runtime, const std::string& name, Value value) {
  for (auto& [key, old] : attributes)
    if (key == name) {
      old = std::move(value);
      return;
    }
  runtime.allocate(sizeof(Value) + sizeof(std::string) + name.size());
  attributes.emplace_back(name, std::move(value));
}

int64_t Range::size() const {
  if (step_ > 0 ? start_ >= stop_ : start_ <= stop_) return 0;
  const int64_t span = step_ > 0 ? stop_ - start_ : start_ - stop_;
  const int64_t stride = step_ > 0 ? step_ : -step_;
  return (span + stride - 1) / stride;
}

bool Range::equals(const Range& other) const {
  if (size() != other.size()) return false;
  if (size() == 0) return true;
  return start_ == other.start_ && (size() == 1 || step_ == other.step_);
}

Range Range::slice(int64_t start, int64_t stop, int64_t step) const {
  int64_t stride = 0;
  constexpr int64_t limit = int64_t{1} << 42;
  if (__builtin_mul_overflow(step_, step, &stride) || stride > limit || stride < -limit)
    fail("the step of a slice is too large");
  return {at(start), at(stop), stride};
}

std::string Range::repr(Runtime&) const {
  if (step_ == 1) return fmt::format("range({}, {})", start_, stop_);
  return fmt::format("range({}, {}, {})", start_, stop_, step_);
}

std::optional<Value> Range::item(Runtime&, const Value& key) {
  auto index = key.integer();
  if (!index) return std::nullopt;
  if (*index < 0) *index += size();
  if (*index < 0 || *index >= size()) return std::nullopt;
  return at(*index);
}

namespace {

class RangeCursor : public Cursor {
 public:
  explicit RangeCursor(const Range& range) : range_(range) {}
  std::optional<Value> next(Runtime&) override {
    if (next_ == range_.size()) return std::nullopt;
    return range_.at(next_++);
  }

 private:
  Range range_;
  int64_t next_ = 0;
};

}  // namespace

std::unique_ptr<Cursor> Range::iterate(Runtime&) {
  return std::make_unique<RangeCursor>(*this);
}

class Generator::View : public Cursor {
 public:
  explicit View(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::optional<Value> next(Runtime&) override {
    if (state_->next == state_->items.size()) return std::nullopt;
    return state_->items[state_->next++];
  }

 private:
  std::shared_ptr<State> state_;
};

Generator::Generator(std::vector<Value> items) : state_(std::make_shared<State>()) {
  for (const Value& item : items) depth_ = std::max(depth_, 1 + item.depth());
  state_->items = std::move(items);
}

std::unique_ptr<Cursor> Generator::iterate(Runtime&) {
  return std::make_unique<View>(state_);
}

Value make_generator(Runtime& runtime, std::vector<Value> items) {
  runtime.allocate(sizeof(Generator) + items.size() * sizeof(Value));
  auto generator = std::make_shared<Generator>(std::move(items));
  if (generator->depth() > maximum_value_depth)
    fail("lists and dicts nest more than {} levels deep", maximum_value_depth);
  return generator;
}

std::string DictView::type_name() const {
  return kind_ == Kind::keys ? "dict_keys" : kind_ == Kind::values ? "dict_values" : "dict_items";
}

Value DictView::list(Runtime& runtime) const {
  std::vector<Value> items;
  for (const auto& [key, value] : dict_.dict().entries) {
    runtime.step();
    if (kind_ == Kind::items)
      items.push_back(make_tuple(runtime, {key, value}));
    else
      items.push_back(kind_ == Kind::keys ? key : value);
  }
  return make_sequence(runtime, std::move(items));
}

std::string DictView::repr(Runtime& runtime) const {
  return type_name() + "(" + jinja::repr(runtime, list(runtime)) + ")";
}

std::unique_ptr<Cursor> DictView::iterate(Runtime& runtime) {
  return jinja::iterate(runtime, list(runtime));
}

class Cycler::Step : public Object {
 public:
  Step(Value items, std::shared_ptr<size_t> position, bool resets)
      : items_(std::move(items)), position_(std::move(position)), resets_(resets) {}
  std::string type_name() const override { return "method"; }
  int depth() const override { return items_.depth() + 1; }
  bool callable() const override { return true; }
  Value call(Runtime&, Arguments&) override {
    if (resets_) {
      *position_ = 0;
      return {};
    }
    const Value current = items_.items()[*position_];
    *position_ = (*position_ + 1) % items_.items().size();
    return current;
  }

 private:
  Value items_;
  std::shared_ptr<size_t> position_;
  bool resets_;
};

std::optional<Value> Cycler::attribute(Runtime&, const std::string& name) {
  if (name == "current") return items_.items()[*position_];
  if (name == "next" || name == "reset")
    return Value(std::make_shared<Step>(items_, position_, name == "reset"));
  return std::nullopt;
}

}  // namespace qnext::jinja
