#include <algorithm>

#include "base/error.h"
#include "ops/sampling/sample_cuda.h"

namespace qnext::ops::cuda {

RowSampling row_sampling(const SamplingParameters& parameters, const TokenCounts& counts,
                         int64_t vocabulary, int64_t position, std::vector<LogitChange>& changes) {
  RowSampling row{.seed = parameters.seed,
                  .position = position,
                  .temperature = parameters.temperature,
                  .top_k = parameters.top_k,
                  .top_p = parameters.top_p,
                  .min_p = parameters.min_p,
                  .presence_penalty = parameters.presence_penalty,
                  .frequency_penalty = parameters.frequency_penalty,
                  .repetition_penalty = parameters.repetition_penalty,
                  .first_change = static_cast<int32_t>(changes.size())};
  const auto first = static_cast<std::ptrdiff_t>(changes.size());
  for (const auto& [token, bias] : parameters.logit_bias)
    changes.push_back({static_cast<double>(bias), token});
  if (parameters.repetition_penalty != 1 || parameters.presence_penalty != 0 ||
      parameters.frequency_penalty != 0)
    for (const TokenCounts::Entry& entry : counts.entries())
      changes.push_back({0, entry.token, entry.in_answer});
  // Each token once: the changes of one are added up, in the order in which they came.
  std::stable_sort(changes.begin() + first, changes.end(),
                   [](const LogitChange& a, const LogitChange& b) { return a.token < b.token; });
  auto last = changes.begin() + first;
  for (auto next = last; next != changes.end(); ++next) {
    if (next->token < 0 || next->token >= vocabulary)
      fail("penalties or logit_bias name token {}: use 0 to {}", next->token, vocabulary - 1);
    if (next == last) continue;
    if (next->token != last->token) {
      *++last = *next;
      continue;
    }
    last->bias += next->bias;
    last->in_answer = std::max(last->in_answer, next->in_answer);
  }
  if (last != changes.end()) changes.erase(last + 1, changes.end());
  row.changes = static_cast<int32_t>(changes.size()) - row.first_change;
  return row;
}

}  // namespace qnext::ops::cuda
