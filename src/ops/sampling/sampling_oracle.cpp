#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "ops/sampling/penalties.h"
#include "ops/sampling/sampling.h"

namespace qnext::ops {

std::vector<double> sampling_distribution_oracle(const float* logits, int64_t vocabulary,
                                                 const SamplingParameters& parameters,
                                                 const TokenCounts& counts) {
  std::vector<float> x(logits, logits + vocabulary);
  for (const auto& [token, logit] : adjusted_logits(logits, vocabulary, parameters, counts))
    x[static_cast<size_t>(token)] = logit;
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return x[a] > x[b]; });
  const double maximum = static_cast<double>(x[order[0]]);
  if (!std::isfinite(maximum)) fail("no finite logit");

  const double temperature = static_cast<double>(parameters.temperature);
  std::vector<double> probability(x.size());
  if (temperature == 0) {
    probability[order[0]] = 1;
    return probability;
  }
  const auto weight = [&](size_t token) {
    return std::exp((static_cast<double>(x[token]) - maximum) / temperature);
  };
  if (parameters.top_k > 0 && static_cast<size_t>(parameters.top_k) < order.size())
    order.resize(static_cast<size_t>(parameters.top_k));
  double total = 0;
  for (size_t token : order) total += weight(token);
  if (parameters.top_p < 1) {
    double sum = 0;
    size_t kept = 0;
    while (kept < order.size() && sum < static_cast<double>(parameters.top_p) * total)
      sum += weight(order[kept++]);
    order.resize(kept);
  }
  while (weight(order.back()) < static_cast<double>(parameters.min_p)) order.pop_back();
  total = 0;
  for (size_t token : order) total += weight(token);
  for (size_t token : order) probability[token] = weight(token) / total;
  return probability;
}

}  // namespace qnext::ops
