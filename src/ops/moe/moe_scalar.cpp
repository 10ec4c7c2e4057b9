#include <cmath>

#include "ops/moe/moe_kernels.h"

namespace qnext::ops::scalar {

void swiglu(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void combine(const float* parts, int64_t stride, const float* weights, int64_t slots, int64_t count,
             float* y) {
  for (int64_t i = 0; i < count; ++i) {
    float sum = 0;
    for (int64_t s = 0; s < slots; ++s) sum = std::fma(weights[s], parts[s * stride + i], sum);
    y[i] += sum;
  }
}

}  // namespace qnext::ops::scalar
