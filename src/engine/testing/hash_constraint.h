// A constraint for the engine's tests: which tokens may come is a pure function of those that have.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "base/error.h"
#include "engine/constraint.h"
#include "engine/testing/fake_backend.h"

namespace qnext::engine::testing {

class HashProgress : public ConstraintProgress {
 public:
  HashProgress(int32_t vocabulary, int32_t seed)
      : vocabulary_(vocabulary), history_(extend_history(0, seed)) {}

  std::vector<std::shared_ptr<const TokenMask>> masks(std::span<const int32_t> drafts) override {
    std::vector<std::shared_ptr<const TokenMask>> result;
    uint64_t history = history_;
    for (size_t i = 0; i <= drafts.size(); ++i) {
      result.push_back(mask(history));
      if (i == drafts.size()) break;
      if (!may_come(history, drafts[i])) break;
      history = extend_history(history, drafts[i]);
    }
    result.resize(drafts.size() + 1);
    return result;
  }
  void accept(int32_t token) override {
    QNEXT_CHECK(may_come(history_, token), "token {} may not come", token);
    history_ = extend_history(history_, token);
  }

 private:
  // A third of all histories allow any token, others about half of them.
  bool may_come(uint64_t history, int32_t token) const {
    if (history % 3 == 0) return true;
    return extend_history(history, token) % 2 == 0 ||
           token == static_cast<int32_t>(history % vocabulary_);
  }
  std::shared_ptr<const TokenMask> mask(uint64_t history) const {
    if (history % 3 == 0) return nullptr;
    auto made = std::make_shared<TokenMask>((vocabulary_ + 31) / 32);
    for (int32_t token = 0; token < static_cast<int32_t>(vocabulary_); ++token)
      if (may_come(history, token)) (*made)[token / 32] |= uint32_t{1} << (token % 32);
    return made;
  }

  uint64_t vocabulary_;
  uint64_t history_;
};

class HashConstraint : public Constraint {
 public:
  HashConstraint(int32_t vocabulary, int32_t seed) : vocabulary_(vocabulary), seed_(seed) {}
  std::unique_ptr<ConstraintProgress> begin() const override {
    return std::make_unique<HashProgress>(vocabulary_, seed_);
  }

 private:
  int32_t vocabulary_;
  int32_t seed_;
};

inline std::shared_ptr<const Constraint> hash_constraint(int32_t vocabulary, int32_t seed) {
  return std::make_shared<HashConstraint>(vocabulary, seed);
}

}  // namespace qnext::engine::testing
