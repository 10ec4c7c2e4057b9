#include "ops/sampling/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "ops/sampling/penalties.h"

namespace qnext::ops {

int32_t argmax(const float* logits, int64_t vocabulary) {
  float maximum = -std::numeric_limits<float>::infinity();
  int64_t best = -1;
  for (int64_t i = 0; i < vocabulary; ++i) {
    if (std::isnan(logits[i])) fail("the logit of token {} is NaN: the weights are damaged", i);
    if (logits[i] > maximum) {
      maximum = logits[i];
      best = i;
    }
  }
  if (best < 0) fail("every logit is -infinity: no token may be drawn");
  if (std::isinf(maximum))
    fail("the logit of token {} is +infinity: the weights are damaged", best);
  return static_cast<int32_t>(best);
}

SampledToken sample(const float* logits, int64_t vocabulary, const SamplingParameters& parameters,
                    const TokenCounts& counts, int64_t position) {
  std::vector<float> x(logits, logits + vocabulary);
  for (const auto& [token, logit] : adjusted_logits(logits, vocabulary, parameters, counts))
    x[static_cast<size_t>(token)] = logit;
  SampledToken result;
  result.token = argmax(x.data(), vocabulary);
  if (parameters.temperature > 0) {
    const std::vector<double> probability =
        sampling_distribution_oracle(logits, vocabulary, parameters, counts);
    const double target = philox_uniform(parameters.seed, static_cast<uint64_t>(position));
    double sum = 0;
    for (size_t i = 0; i < probability.size(); ++i) {
      if (probability[i] == 0) continue;
      result.token = static_cast<int32_t>(i);
      sum += probability[i];
      if (sum > target) break;
    }
  }
  if (parameters.logprobs < 0) return result;
  const double maximum = static_cast<double>(logits[argmax(logits, vocabulary)]);
  double total = 0;
  for (int64_t i = 0; i < vocabulary; ++i)
    total += std::exp(static_cast<double>(logits[i]) - maximum);
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(static_cast<double>(logits[token]) - maximum - std::log(total));
  };
  std::vector<int32_t> order(static_cast<size_t>(vocabulary));
  std::iota(order.begin(), order.end(), 0);
  const auto top = order.begin() + std::min<int64_t>(parameters.logprobs, vocabulary);
  std::partial_sort(order.begin(), top, order.end(), [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  result.logprob = logprob(result.token);
  for (auto token = order.begin(); token != top; ++token)
    result.top.push_back({*token, logprob(*token)});
  return result;
}

}  // namespace qnext::ops
