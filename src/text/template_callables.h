// Macros and the `loop` variable.
#pragma once

#include "text/template_evaluator.h"

namespace qnext::jinja {

class Macro : public Object {
 public:
  Macro(Evaluator& evaluator, const Statement& statement, std::string name,
        Evaluator::ScopePointer scope)
      : evaluator_(evaluator),
        statement_(statement),
        name_(std::move(name)),
        scope_(std::move(scope)) {}

  std::string type_name() const override { return "Macro"; }
  std::string repr(Runtime&) const override { return "<Macro '" + name_ + "'>"; }
  std::optional<Value> attribute(Runtime& runtime, const std::string& name) override;
  bool callable() const override { return true; }
  Value call(Runtime& runtime, Arguments& arguments) override;

 private:
  void bind(Arguments& arguments, const Evaluator::ScopePointer& scope);
  void bind_rest(Arguments& arguments, size_t taken, Scope& scope);

  Evaluator& evaluator_;
  const Statement& statement_;
  std::string name_;
  Evaluator::ScopePointer scope_;  // where it was defined
};

class Loop : public Object, public std::enable_shared_from_this<Loop> {
 public:
  // `size` where the iterable knows its length; else the rest is read once it is asked for.
  Loop(Evaluator& evaluator, const Statement& statement, Evaluator::ScopePointer scope,
       std::unique_ptr<Cursor> cursor, std::optional<int64_t> size, int item_depth, int depth)
      : evaluator_(evaluator),
        statement_(statement),
        scope_(std::move(scope)),
        cursor_(std::move(cursor)),
        size_(size),
        item_depth_(item_depth),
        depth_(depth) {}

  std::optional<Value> advance();
  // Lets go of what could form a cycle; the loop variable may outlive its loop.
  void finish();

  std::string type_name() const override { return "LoopContext"; }
  std::string repr(Runtime& runtime) const override;
  int depth() const override { return item_depth_; }
  std::optional<Value> attribute(Runtime& runtime, const std::string& name) override;
  bool callable() const override { return true; }
  Value call(Runtime& runtime, Arguments& arguments) override;
  std::optional<int64_t> length(Runtime&) override { return size(); }
  Value cycle(Arguments& arguments) const;
  Value changed(Runtime& runtime, Arguments& arguments);

 private:
  int64_t size();
  const std::optional<Value>& peek();
  std::optional<Value> fetch();

  Evaluator& evaluator_;
  const Statement& statement_;
  Evaluator::ScopePointer scope_;
  std::unique_ptr<Cursor> cursor_;
  std::optional<int64_t> size_;
  int item_depth_;
  int depth_;
  int64_t index_ = -1;
  bool peeked_ = false;
  bool finished_ = false;
  std::optional<Value> before_, current_, after_, last_changed_;
  std::vector<Value> rest_;  // read ahead to learn the length
  size_t next_of_rest_ = 0;
};

}  // namespace qnext::jinja
