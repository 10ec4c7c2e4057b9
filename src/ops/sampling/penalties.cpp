#include "ops/sampling/penalties.h"

#include <algorithm>

#include "base/error.h"

namespace qnext::ops {

namespace {

// What happens to one token's logit.
struct Change {
  int32_t token = 0;
  double bias = 0;
  bool seen = false;
  int32_t in_answer = 0;
};

void check_token(int32_t token, int64_t vocabulary) {
  if (token < 0 || token >= vocabulary)
    fail("penalties or logit_bias name token {}: use 0 to {}", token, vocabulary - 1);
}

}  // namespace

std::vector<std::pair<int32_t, float>> adjusted_logits(const float* logits, int64_t vocabulary,
                                                       const SamplingParameters& parameters,
                                                       const TokenCounts& counts) {
  std::vector<Change> changes;
  for (const auto& [token, bias] : parameters.logit_bias)
    changes.push_back({token, bias, false, 0});
  const bool penalties = parameters.repetition_penalty != 1 || parameters.presence_penalty != 0 ||
                         parameters.frequency_penalty != 0;
  if (penalties)
    for (const TokenCounts::Entry& entry : counts.entries())
      changes.push_back({entry.token, 0, true, entry.in_answer});
  std::stable_sort(changes.begin(), changes.end(),
                   [](const Change& a, const Change& b) { return a.token < b.token; });

  std::vector<std::pair<int32_t, float>> adjusted;
  for (size_t i = 0; i < changes.size();) {
    Change all = changes[i];
    for (++i; i < changes.size() && changes[i].token == all.token; ++i) {
      all.bias += changes[i].bias;
      all.seen |= changes[i].seen;
      all.in_answer += changes[i].in_answer;
    }
    check_token(all.token, vocabulary);
    double logit = static_cast<double>(logits[all.token]) + all.bias;
    const double repetition = static_cast<double>(parameters.repetition_penalty);
    if (all.seen) logit = logit > 0 ? logit / repetition : logit * repetition;
    if (all.in_answer > 0)
      logit -= static_cast<double>(parameters.presence_penalty) +
               static_cast<double>(parameters.frequency_penalty) * all.in_answer;
    adjusted.emplace_back(all.token, static_cast<float>(logit));
  }
  return adjusted;
}

}  // namespace qnext::ops
