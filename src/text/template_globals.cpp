// The functions that every template can call.
#include <ctime>

#include "base/error.h"
#include "text/template_arguments.h"
#include "text/template_evaluator.h"
#include "text/template_objects.h"
#include "text/template_operations.h"

namespace qnext::jinja {

namespace {

constexpr int64_t maximum_range = 100'000;  // the sandbox's own bound

Value range(Runtime& runtime, const Value&, Arguments& arguments) {
  const Bound bound("range", arguments, {"start", "stop", "step"}, 1);
  const int64_t start = bound.has(1) ? bound.integer(0, 0) : 0;
  const int64_t stop = bound.has(1) ? bound.integer(1, 0) : bound.integer(0, 0);
  const int64_t step = bound.integer(2, 1);
  if (step == 0) fail("range needs a step other than 0");
  constexpr int64_t limit = int64_t{1} << 40;
  if (std::max({std::abs(start / 2), std::abs(stop / 2), std::abs(step / 2)}) > limit)
    fail("range needs smaller numbers");
  runtime.allocate(sizeof(Range));
  auto out = std::make_shared<Range>(start, stop, step);
  if (out->size() > maximum_range)
    fail("range gives {} items; {} is the most", out->size(), maximum_range);
  return out;
}

// dict(pairs or mapping, **keywords), shared with namespace().
Dict build_dict(Runtime& runtime, Arguments& arguments) {
  if (arguments.positional.size() > 1) fail("dict and namespace take one positional argument");
  Dict out;
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.is_dict()) {
      for (const auto& [key, value] : from.dict().entries) out.set(runtime, key, value);
    } else {
      for (const Value& pair : to_vector(runtime, from)) {
        const auto items = to_vector(runtime, pair);
        if (items.size() != 2) fail("dict needs pairs, found {} items", items.size());
        out.set(runtime, items[0], items[1]);
      }
    }
  }
  for (auto& [name, value] : arguments.keywords) out.set(runtime, Value(name), value);
  return out;
}

Value dict(Runtime& runtime, const Value&, Arguments& arguments) {
  return make_dict(runtime, build_dict(runtime, arguments));
}

Value make_namespace(Runtime& runtime, const Value&, Arguments& arguments) {
  auto space = std::make_shared<Namespace>();
  runtime.keep(space);
  for (auto& [key, value] : build_dict(runtime, arguments).entries)
    if (key.is_string()) space->set(runtime, key.text(), value);
  return space;
}

Value cycler(Runtime& runtime, const Value&, Arguments& arguments) {
  if (arguments.positional.empty()) fail("cycler needs items");
  return std::make_shared<Cycler>(make_tuple(runtime, arguments.positional));
}

Value joiner(Runtime& runtime, const Value&, Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  runtime.allocate(sizeof(Joiner));
  return std::make_shared<Joiner>(bound.value_or(0, Value(", ")));
}

Value raise_exception(Runtime& runtime, const Value&, Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  fail("{}", to_text(runtime, bound[0]));
}

Value strftime_now(Runtime& runtime, const Value&, Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  const std::string& format = bound.text(0);
  if (format.empty()) return Value("");
  const std::time_t now = runtime.now();
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[4096];
  const size_t size = std::strftime(buffer, sizeof buffer, format.c_str(), &local);
  if (size == 0) fail("strftime_now: the format gives no text or too much");
  return make_string(runtime, std::string(buffer, size));
}

}  // namespace

void add_globals(Runtime& runtime, Scope& scope) {
  static constexpr std::pair<const char*, Function::Body> functions[] = {
      {"range", range},
      {"dict", dict},
      {"namespace", make_namespace},
      {"cycler", cycler},
      {"joiner", joiner},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now}};
  for (const auto& [name, body] : functions)
    scope.set(runtime, name, Value(std::make_shared<Function>(name, body)));
}

}  // namespace qnext::jinja
