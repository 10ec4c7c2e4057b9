// What one rendering may use, and what it holds until it ends.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <vector>

#include "text/template_value.h"

namespace qnext::jinja {

// A template is data from outside: each bound ends a runaway one with an Error.
struct Limits {
  int64_t steps = 10'000'000;                  // evaluated nodes; scanning 128 bytes is one too
  int64_t allocated_bytes = int64_t{1} << 29;  // all that values ever took, freed or not
  int64_t output_bytes = int64_t{1} << 24;
  int macro_depth = 200;
  size_t stack_bytes = size_t{1} << 20;  // below the frame that calls render
};

struct Scope;
class Namespace;

class Runtime {
 public:
  explicit Runtime(const Limits& limits, std::optional<std::time_t> now = std::nullopt);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  void step(int64_t count = 1) {
    if ((steps_ -= count) < 0) out_of_steps();
  }
  void scan(size_t bytes) { step(static_cast<int64_t>(bytes / 128)); }
  void allocate(size_t bytes);
  // Before building something of count * bytes, which may overflow.
  void allocate(int64_t count, size_t bytes);
  void check_stack() const;
  void enter_macro();
  void leave_macro() { --macro_depth_; }

  const Limits& limits() const { return limits_; }
  std::time_t now() const;

  // Namespaces and the scopes that macros close over may form cycles: they live until the
  // rendering ends, which empties them first.
  void keep(std::shared_ptr<Namespace> space);
  void keep(std::shared_ptr<Scope> scope);

  int line = 1;  // of the node being evaluated, for errors

 private:
  [[noreturn]] void out_of_steps() const;

  Limits limits_;
  std::optional<std::time_t> now_;
  int64_t steps_;
  int64_t bytes_;
  int macro_depth_ = 0;
  const char* stack_base_;
  std::vector<std::shared_ptr<Namespace>> spaces_;
  std::vector<std::shared_ptr<Scope>> scopes_;
};

// The bytes of stack between `base` and the caller's frame.
size_t stack_used_since(const char* base);

// The variables of a block; a name is looked up here, then in the parents.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables;  // few: a scan beats a map
  bool kept = false;

  const Value* find(const std::string& name) const;
  void set(Runtime& runtime, const std::string& name, Value value);
};

}  // namespace qnext::jinja
