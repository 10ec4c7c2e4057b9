#include "ops/sampling/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/cpu_features.h"
#include "base/error.h"
#include "ops/sampling/sampling_kernels.h"

namespace qnext::ops {

namespace {

constexpr IsaTable<const SamplingKernels*> kernels{&sampling_scalar, &sampling_avx2,
                                                   &sampling_avx512};

}  // namespace

void LogitScan::scan(const float* logits, int64_t count) {
  logits_ = logits;
  count_ = count;
  maxima_.resize(static_cast<size_t>((count + logit_block - 1) / logit_block));
  if (kernels.choose()->block_maxima(logits, count, maxima_.data())) {
    const float* nan = std::find_if(logits, logits + count, [](float x) { return std::isnan(x); });
    fail("the logit of token {} is NaN: the weights are damaged", nan - logits);
  }
  maximum_ = count == 0 ? -std::numeric_limits<float>::infinity()
                        : *std::max_element(maxima_.begin(), maxima_.end());
  if (std::isinf(maximum_)) {
    if (maximum_ < 0) fail("every logit is -infinity: no token may be drawn");
    fail("the logit of token {} is +infinity: the weights are damaged", best());
  }
}

int32_t LogitScan::best() const {
  const auto block = std::find(maxima_.begin(), maxima_.end(), maximum_) - maxima_.begin();
  int64_t token = block * logit_block;
  while (logits_[token] != maximum_) ++token;
  return static_cast<int32_t>(token);
}

const std::vector<double>& LogitScan::sums(double inverse_temperature) {
  sums_.resize(maxima_.size());
  kernels.choose()->block_sums(logits_, count_, static_cast<double>(maximum_), inverse_temperature,
                               sums_.data());
  return sums_;
}

void LogitScan::at_least(float bound, std::vector<Candidate>& out) const {
  out.clear();
  for (size_t block = 0; block < maxima_.size(); ++block) {
    if (maxima_[block] < bound) continue;
    const int64_t begin = static_cast<int64_t>(block) * logit_block;
    const int64_t end = std::min(begin + logit_block, count_);
    for (int64_t i = begin; i < end; ++i)
      if (logits_[i] >= bound) out.push_back({logits_[i], static_cast<int32_t>(i)});
  }
}

// The k-th largest of the block maxima is a bound that at least k tokens reach.
void LogitScan::most_probable(int64_t k, std::vector<Candidate>& out) {
  float bound = -std::numeric_limits<float>::infinity();
  if (k <= static_cast<int64_t>(maxima_.size())) {
    order_ = maxima_;
    const auto kth = order_.begin() + (k - 1);
    std::nth_element(order_.begin(), kth, order_.end(), std::greater<>());
    bound = *kth;
  }
  at_least(bound, out);
  k = std::min(k, static_cast<int64_t>(out.size()));
  if (k < static_cast<int64_t>(out.size()))
    std::nth_element(out.begin(), out.begin() + k, out.end());
  out.resize(static_cast<size_t>(k));
  std::sort(out.begin(), out.end());
}

}  // namespace qnext::ops
