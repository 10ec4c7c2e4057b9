#include "engine/grammar_constraint.h"

#include <utility>

namespace qnext::engine {
namespace {

class Progress : public ConstraintProgress {
 public:
  explicit Progress(std::shared_ptr<grammar::TokenGrammar> grammar) : reader_(std::move(grammar)) {}
  std::vector<std::shared_ptr<const TokenMask>> masks(std::span<const int32_t> drafts) override {
    return reader_.masks(drafts);
  }
  void accept(int32_t token) override { reader_.accept(token); }

 private:
  grammar::TokenGrammarReader reader_;
};

class GrammarConstraint : public Constraint {
 public:
  explicit GrammarConstraint(std::shared_ptr<grammar::TokenGrammar> grammar)
      : grammar_(std::move(grammar)) {}
  std::unique_ptr<ConstraintProgress> begin() const override {
    return std::make_unique<Progress>(grammar_);
  }

 private:
  std::shared_ptr<grammar::TokenGrammar> grammar_;
};

}  // namespace

std::shared_ptr<const Constraint> grammar_constraint(
    std::shared_ptr<grammar::TokenGrammar> grammar) {
  return std::make_shared<GrammarConstraint>(std::move(grammar));
}

}  // namespace qnext::engine
