#include <cmath>

#include "base/error.h"
#include "ops/sampling/sampling.h"

namespace qnext::ops {

namespace {

// The negations are false for NaN as well.
void within(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) fail("{} is {}: use {} to {}", name, value, low, high);
}

}  // namespace

void validate(const SamplingParameters& parameters, int64_t vocabulary) {
  if (!(parameters.temperature >= 0 && std::isfinite(parameters.temperature)))
    fail("temperature is {}: use 0 (greedy) or a positive number", parameters.temperature);
  if (parameters.top_k < 0) fail("top_k is {}: use 0 (off) or a positive number", parameters.top_k);
  if (!(parameters.top_p > 0 && parameters.top_p <= 1))
    fail("top_p is {}: use a number above 0 and up to 1 (off)", parameters.top_p);
  within("min_p", parameters.min_p, 0, 1);
  within("presence_penalty", parameters.presence_penalty, -2, 2);
  within("frequency_penalty", parameters.frequency_penalty, -2, 2);
  if (!(parameters.repetition_penalty > 0 && std::isfinite(parameters.repetition_penalty)))
    fail("repetition_penalty is {}: use a positive number (1 is off)",
         parameters.repetition_penalty);
  for (const auto& [token, bias] : parameters.logit_bias) {
    if (token < 0 || token >= vocabulary)
      fail("logit_bias names token {}: use 0 to {}", token, vocabulary - 1);
    within("logit_bias", bias, -100, 100);
  }
  if (parameters.logprobs < -1 || parameters.logprobs > vocabulary)
    fail("logprobs is {}: use 0 to {}, or -1 for none", parameters.logprobs, vocabulary);
}

void TokenCounts::add(int32_t token, bool answer) {
  const auto [place, added] = place_.try_emplace(token, entries_.size());
  if (added) entries_.push_back({token, 0, 0});
  Entry& entry = entries_[place->second];
  ++(answer ? entry.in_answer : entry.in_prompt);
}

}  // namespace qnext::ops
