#include "text/template_callables.h"

#include <algorithm>

#include "base/error.h"
#include "text/template_objects.h"
#include "text/template_operations.h"

namespace qnext::jinja {

namespace {

std::optional<Value> take_keyword(Arguments& arguments, const std::string& name) {
  auto& keywords = arguments.keywords;
  const auto it = std::find_if(keywords.begin(), keywords.end(),
                               [&](const auto& keyword) { return keyword.first == name; });
  if (it == keywords.end()) return std::nullopt;
  std::optional<Value> value(std::move(it->second));
  keywords.erase(it);
  return value;
}

class MacroDepth {
 public:
  explicit MacroDepth(Runtime& runtime) : runtime_(runtime) { runtime.enter_macro(); }
  ~MacroDepth() { runtime_.leave_macro(); }
  MacroDepth(const MacroDepth&) = delete;
  MacroDepth& operator=(const MacroDepth&) = delete;

 private:
  Runtime& runtime_;
};

}  // namespace

std::optional<Value> Macro::attribute(Runtime& runtime, const std::string& name) {
  const Parameters& parameters = statement_.parameters;
  if (name == "name") return Value(name_);
  if (name == "catch_kwargs") return Value(parameters.uses_kwargs);
  if (name == "catch_varargs") return Value(parameters.uses_varargs);
  if (name == "caller") return Value(parameters.uses_caller);
  if (name != "arguments") return std::nullopt;
  std::vector<Value> names;
  for (const std::string& parameter : parameters.names) names.emplace_back(parameter);
  return make_tuple(runtime, std::move(names));
}

void Macro::bind(Arguments& arguments, const Evaluator::ScopePointer& scope) {
  Runtime& runtime = evaluator_.runtime();
  const Parameters& parameters = statement_.parameters;
  const size_t count = parameters.names.size();
  const size_t without_default = count - parameters.defaults.size();
  const size_t given = std::min(arguments.positional.size(), count);
  std::vector<std::optional<Value>> values(count);
  for (size_t i = 0; i < count; ++i)
    values[i] = i < given ? std::optional(arguments.positional[i])
                          : take_keyword(arguments, parameters.names[i]);
  bind_rest(arguments, given, *scope);
  for (size_t i = 0; i < count; ++i) {
    const std::string& name = parameters.names[i];
    if (!values[i] && i >= without_default)  // a default may name earlier parameters
      values[i] = evaluator_.evaluate(*parameters.defaults[i - without_default], scope);
    if (!values[i])
      values[i] = Value::undefined(fmt::format("the parameter '{}' was not given", name));
    scope->set(runtime, name, std::move(*values[i]));
  }
}

void Macro::bind_rest(Arguments& arguments, size_t taken, Scope& scope) {
  Runtime& runtime = evaluator_.runtime();
  const Parameters& parameters = statement_.parameters;
  const auto& names = parameters.names;
  if (parameters.uses_caller && !std::count(names.begin(), names.end(), "caller")) {
    auto caller = take_keyword(arguments, "caller");
    scope.set(runtime, "caller", caller ? *caller : Value::undefined("no caller is defined"));
  }
  if (parameters.uses_kwargs) {
    Dict rest;
    for (auto& [name, value] : arguments.keywords) rest.set(runtime, Value(name), std::move(value));
    scope.set(runtime, "kwargs", make_dict(runtime, std::move(rest)));
  } else if (!arguments.keywords.empty()) {
    fail("macro '{}' has no parameter '{}'", name_, arguments.keywords[0].first);
  }
  if (parameters.uses_varargs) {
    std::vector<Value> rest(arguments.positional.begin() + static_cast<std::ptrdiff_t>(taken),
                            arguments.positional.end());
    scope.set(runtime, "varargs", make_tuple(runtime, std::move(rest)));
  } else if (arguments.positional.size() > taken) {
    fail("macro '{}' takes at most {} arguments, not {}", name_, names.size(),
         arguments.positional.size());
  }
}

Value Macro::call(Runtime& runtime, Arguments& arguments) {
  const MacroDepth depth(runtime);
  runtime.check_stack();
  const auto scope = evaluator_.child(scope_);
  bind(arguments, scope);
  const int line = runtime.line;
  std::string out;
  evaluator_.execute(statement_.bodies[0], scope, out);
  runtime.line = line;
  return make_string(runtime, std::move(out));
}

std::optional<Value> Loop::fetch() {
  if (next_of_rest_ < rest_.size()) return rest_[next_of_rest_++];
  return cursor_ ? cursor_->next(evaluator_.runtime()) : std::nullopt;
}

std::optional<Value> Loop::advance() {
  auto next = peeked_ ? std::move(after_) : fetch();
  peeked_ = false;
  after_.reset();
  if (!next) return std::nullopt;
  ++index_;
  before_ = std::move(current_);
  current_ = next;
  return next;
}

void Loop::finish() {
  finished_ = true;
  cursor_.reset();
  scope_.reset();
  last_changed_.reset();
}

const std::optional<Value>& Loop::peek() {
  if (!peeked_) {
    after_ = fetch();
    peeked_ = true;
  }
  return after_;
}

int64_t Loop::size() {
  if (!size_) {
    while (cursor_) {
      auto item = cursor_->next(evaluator_.runtime());
      if (!item) break;
      evaluator_.runtime().allocate(sizeof(Value));
      rest_.push_back(std::move(*item));
    }
    size_ = static_cast<int64_t>(rest_.size() - next_of_rest_) + index_ + 1 + (after_ ? 1 : 0);
  }
  return *size_;
}

std::string Loop::repr(Runtime&) const {
  return fmt::format("<LoopContext {}/{}>", index_ + 1, const_cast<Loop*>(this)->size());
}

namespace {

Value cycle_body(Runtime&, const Value& self, Arguments& arguments) {
  return self.as<Loop>()->cycle(arguments);
}

Value changed_body(Runtime& runtime, const Value& self, Arguments& arguments) {
  return self.as<Loop>()->changed(runtime, arguments);
}

}  // namespace

std::optional<Value> Loop::attribute(Runtime&, const std::string& name) {
  if (name == "index") return Value(index_ + 1);
  if (name == "index0") return Value(index_);
  if (name == "first") return Value(index_ == 0);
  if (name == "last") return Value(!peek());
  if (name == "length") return Value(size());
  if (name == "revindex") return Value(size() - index_);
  if (name == "revindex0") return Value(size() - index_ - 1);
  if (name == "depth") return Value(int64_t{depth_});
  if (name == "depth0") return Value(int64_t{depth_ - 1});
  if (name == "previtem")
    return index_ > 0 && before_ ? *before_ : Value::undefined("there is no previous item");
  if (name == "nextitem") return peek() ? *peek() : Value::undefined("there is no next item");
  if (name == "cycle")
    return Value(std::make_shared<Function>("cycle", cycle_body, Value(shared_from_this())));
  if (name == "changed")
    return Value(std::make_shared<Function>("changed", changed_body, Value(shared_from_this())));
  return std::nullopt;
}

Value Loop::cycle(Arguments& arguments) const {
  if (arguments.positional.empty()) fail("loop.cycle needs items");
  return arguments
      .positional[static_cast<size_t>(std::max<int64_t>(index_, 0)) % arguments.positional.size()];
}

Value Loop::changed(Runtime& runtime, Arguments& arguments) {
  if (finished_) fail("loop.changed is called outside its loop");
  Value now = make_tuple(runtime, arguments.positional);
  if (last_changed_ && equal(runtime, *last_changed_, now)) return false;
  last_changed_ = std::move(now);
  return true;
}

Value Loop::call(Runtime& runtime, Arguments& arguments) {
  if (!statement_.recursive) fail("only a loop marked 'recursive' can be called");
  if (arguments.positional.size() != 1 || !arguments.keywords.empty())
    fail("a recursive loop takes one argument");
  if (finished_) fail("a loop is called outside its body");
  const MacroDepth depth(runtime);
  runtime.check_stack();
  return make_string(runtime,
                     evaluator_.run_loop(statement_, arguments.positional[0], scope_, depth_ + 1));
}

}  // namespace qnext::jinja
