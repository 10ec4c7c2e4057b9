// What an answer may say: asked before each step which tokens may come.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace qnext::engine {

// Bit t % 32 of word t / 32: token t may come.
using TokenMask = std::vector<uint32_t>;

// One answer's way. Called on the engine's thread; between two tokens there is a step of the model,
// which should not wait long for it. Errors end the answer that they come from.
class ConstraintProgress {
 public:
  virtual ~ConstraintProgress() = default;
  // Of the next token, and of the one behind each of `drafts`: [drafts + 1] masks over the model's
  // vocabulary, null where any token may come. What follows a draft that may not come is not asked
  // for: that draft is rejected.
  virtual std::vector<std::shared_ptr<const TokenMask>> masks(std::span<const int32_t> drafts) = 0;
  // The answer has gone on with this token, the stop token included.
  virtual void accept(int32_t token) = 0;
};

// Shared by the answers that it constrains; begin() may be called on any thread.
class Constraint {
 public:
  virtual ~Constraint() = default;
  virtual std::unique_ptr<ConstraintProgress> begin() const = 0;
};

}  // namespace qnext::engine
