// Logit bias and penalties, shared by the sampler and its oracle.
#pragma once

#include <utility>
#include <vector>

#include "ops/sampling/sampling.h"

namespace qnext::ops {

// The tokens whose logit the parameters change, with the new logit; each token once, by id.
// Throws Error where a token lies outside the vocabulary.
std::vector<std::pair<int32_t, float>> adjusted_logits(const float* logits, int64_t vocabulary,
                                                       const SamplingParameters& parameters,
                                                       const TokenCounts& counts);

}  // namespace qnext::ops
