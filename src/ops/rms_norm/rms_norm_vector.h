// The row kernel on the Vector of whichever activation/vector_*.h was included before.
#pragma once

#include "ops/activation/vector_exp.h"
#include "ops/rms_norm/rms_norm_kernels.h"

namespace qnext::ops {
namespace {

// Four vectors of partial sums hide the latency of the addition.
inline float sum_of_squares(const float* x, int64_t width) {
  Vector sums[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * lanes <= width; i += 4 * lanes) {
    for (int64_t j = 0; j < 4; ++j) {
      const Vector v = load(x + i + j * lanes);
      sums[j] = fma(v, v, sums[j]);
    }
  }
  for (; i + lanes <= width; i += lanes) sums[0] = fma(load(x + i), load(x + i), sums[0]);
  if (i < width) {
    const Vector v = load_first(x + i, width - i);
    sums[1] = fma(v, v, sums[1]);
  }
  return reduce_add(add(add(sums[0], sums[2]), add(sums[1], sums[3])));
}

inline void rms_norm_row_vector(const float* x, const float* gate, const float* weight, float eps,
                                int64_t width, float* y) {
  const float mean = sum_of_squares(x, width) / static_cast<float>(width);
  const Vector scale = splat(1.0f / __builtin_sqrtf(mean + eps));
  const auto normalized = [&](Vector v, Vector w, Vector g) {
    return gate == nullptr ? multiply(multiply(v, scale), add(splat(1.0f), w))
                           : multiply(multiply(multiply(v, scale), w), silu(g));
  };
  const float* g = gate == nullptr ? x : gate;  // some readable memory
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes)
    store(y + i, normalized(load(x + i), load(weight + i), load(g + i)));
  if (i < width) {
    const int64_t n = width - i;
    store_first(y + i,
                normalized(load_first(x + i, n), load_first(weight + i, n), load_first(g + i, n)),
                n);
  }
}

}  // namespace
}  // namespace qnext::ops
