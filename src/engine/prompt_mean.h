// The embedding of a prompt: the mean of the model's hidden states, after the final norm, over the
// prompt's tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qnext::engine {

// Takes the states step by step. Sums are of doubles and go from token to token, so that the mean
// does not depend on where the prompt was cut.
class PromptMean {
 public:
  explicit PromptMean(int64_t width) : sums_(static_cast<size_t>(width)) {}

  // Where the next step puts its states, [rows, width].
  float* begin(int64_t rows);
  // The step has run.
  void add();
  // All of the prompt will come again.
  void start_anew();
  // Over all so far. Throws Error where the states are not numbers.
  std::vector<float> mean() const;

 private:
  int64_t width() const { return static_cast<int64_t>(sums_.size()); }

  std::vector<float> states_;  // of the step under way
  std::vector<double> sums_;
  int64_t tokens_ = 0;
};

}  // namespace qnext::engine
