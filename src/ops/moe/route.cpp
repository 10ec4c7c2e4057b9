#include <algorithm>
#include <cmath>

#include "ops/moe/moe.h"

namespace qnext::ops {

namespace {

// The top k of one row by logit, which is the order of p; a strict comparison keeps the lower index
// first among equals. NaN is never larger than anything: a row of NaN still gets valid ids.
void route_row(const float* logits, int64_t experts, int64_t top_k, bool renormalize, int32_t* ids,
               float* weights) {
  int64_t chosen = 0;
  for (int64_t e = 0; e < experts; ++e) {
    if (chosen == top_k && !(logits[e] > logits[ids[top_k - 1]])) continue;
    int64_t slot = chosen < top_k ? chosen++ : top_k - 1;
    for (; slot > 0 && logits[e] > logits[ids[slot - 1]]; --slot) ids[slot] = ids[slot - 1];
    ids[slot] = static_cast<int32_t>(e);
  }
  const float largest = logits[ids[0]];
  float sum = 0;
  if (renormalize) {
    // The sum over all experts cancels: p_e / sum of the chosen p.
    for (int64_t slot = 0; slot < top_k; ++slot) sum += std::exp(logits[ids[slot]] - largest);
  } else {
    for (int64_t e = 0; e < experts; ++e) sum += std::exp(logits[e] - largest);
  }
  for (int64_t slot = 0; slot < top_k; ++slot)
    weights[slot] = std::exp(logits[ids[slot]] - largest) / sum;
}

}  // namespace

void route(ThreadPool& pool, const float* logits, int64_t rows, int64_t experts, int64_t top_k,
           bool renormalize, int32_t* ids, float* weights, int64_t slot_stride) {
  pool.parallel_for(rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      route_row(logits + row * experts, experts, top_k, renormalize, ids + row * slot_stride,
                weights + row * slot_stride);
  });
}

}  // namespace qnext::ops
