#include "text/template_runtime.h"

#include "base/error.h"
#include "text/template_objects.h"

namespace qnext::jinja {

Runtime::Runtime(const Limits& limits, std::optional<std::time_t> now)
    : limits_(limits),
      now_(now),
      steps_(limits.steps),
      bytes_(limits.allocated_bytes),
      stack_base_(static_cast<const char*>(__builtin_frame_address(0))) {}

Runtime::~Runtime() {
  for (const auto& space : spaces_) space->attributes.clear();
  for (const auto& scope : scopes_) {
    scope->variables.clear();
    scope->parent.reset();
  }
}

void Runtime::out_of_steps() const {
  fail("the template needs more than {} steps; does a loop never end?", limits_.steps);
}

void Runtime::allocate(size_t bytes) {
  step(static_cast<int64_t>(bytes / 128));
  bytes_ -= static_cast<int64_t>(bytes);
  if (bytes_ < 0)
    fail("the template needs more than {} MiB of memory", limits_.allocated_bytes >> 20);
}

void Runtime::allocate(int64_t count, size_t bytes) {
  if (count <= 0) return;
  int64_t product = 0;
  if (__builtin_mul_overflow(count, static_cast<int64_t>(bytes), &product) ||
      product > limits_.allocated_bytes)
    product = limits_.allocated_bytes + 1;
  if (product > bytes_)
    fail("the template needs more than {} MiB of memory", limits_.allocated_bytes >> 20);
  allocate(static_cast<size_t>(product));
}

size_t stack_used_since(const char* base) {
  const char* here = static_cast<const char*>(__builtin_frame_address(0));
  return static_cast<size_t>(here < base ? base - here : here - base);
}

void Runtime::check_stack() const {
  if (stack_used_since(stack_base_) > limits_.stack_bytes)
    fail("the template nests or recurses too deeply");
}

void Runtime::enter_macro() {
  if (++macro_depth_ > limits_.macro_depth)
    fail("macros call each other more than {} levels deep", limits_.macro_depth);
}

std::time_t Runtime::now() const {
  return now_ ? *now_ : std::time(nullptr);
}

void Runtime::keep(std::shared_ptr<Namespace> space) {
  allocate(sizeof(Namespace));
  spaces_.push_back(std::move(space));
}

void Runtime::keep(std::shared_ptr<Scope> scope) {
  for (; scope && !scope->kept; scope = scope->parent) {
    allocate(sizeof(Scope));
    scope->kept = true;
    scopes_.push_back(scope);
  }
}

const Value* Scope::find(const std::string& name) const {
  for (const Scope* scope = this; scope; scope = scope->parent.get())
    for (const auto& [key, value] : scope->variables)
      if (key == name) return &value;
  return nullptr;
}

void Scope::set(Runtime& runtime, const std::string& name, Value value) {
  for (auto& [key, old] : variables)
    if (key == name) {
      old = std::move(value);
      return;
    }
  runtime.allocate(sizeof(Value) + name.size());
  variables.emplace_back(name, std::move(value));
}

}  // namespace qnext::jinja
