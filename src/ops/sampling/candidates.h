// The most probable tokens of a vocabulary, found without sorting all of it.
#pragma once

#include <cstdint>
#include <vector>

namespace qnext::ops {

struct Candidate {
  float logit = 0;
  int32_t token = 0;

  // More probable first; of equal ones the lower token.
  bool operator<(const Candidate& other) const {
    return logit != other.logit ? logit > other.logit : token < other.token;
  }
};

// Logits (none NaN) and the largest of each of their blocks. Keeps its memory between uses.
class LogitScan {
 public:
  // Throws Error where a logit is NaN or +infinity or all are -infinity.
  void scan(const float* logits, int64_t count);

  float maximum() const { return maximum_; }
  // The lowest token with the largest logit.
  int32_t best() const;
  // exp((x - maximum) * inverse_temperature) of every token, summed block by block.
  const std::vector<double>& sums(double inverse_temperature);
  // Every token with a logit of at least `bound`, by token.
  void at_least(float bound, std::vector<Candidate>& out) const;
  // The k most probable tokens, most probable first.
  void most_probable(int64_t k, std::vector<Candidate>& out);

 private:
  const float* logits_ = nullptr;
  int64_t count_ = 0;
  float maximum_ = 0;
  std::vector<float> maxima_;
  std::vector<float> order_;
  std::vector<double> sums_;
};

}  // namespace qnext::ops
