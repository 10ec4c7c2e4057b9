#include "engine/prompt_mean.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace qnext::engine {

float* PromptMean::begin(int64_t rows) {
  states_.resize(static_cast<size_t>(rows * width()));
  return states_.data();
}

void PromptMean::add() {
  const size_t columns = sums_.size();
  for (size_t row = 0; row < states_.size(); row += columns)
    for (size_t column = 0; column < columns; ++column) sums_[column] += states_[row + column];
  tokens_ += static_cast<int64_t>(states_.size() / columns);
  states_.clear();
}

void PromptMean::start_anew() {
  std::ranges::fill(sums_, 0.0);
  tokens_ = 0;
}

std::vector<float> PromptMean::mean() const {
  QNEXT_CHECK(tokens_ > 0);
  std::vector<float> mean;
  for (const double sum : sums_) {
    if (!std::isfinite(sum)) fail("the model's hidden states are not numbers");
    mean.push_back(static_cast<float>(sum / static_cast<double>(tokens_)));
  }
  return mean;
}

}  // namespace qnext::engine
