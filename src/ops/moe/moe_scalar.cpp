// Portable kernels. The vector ones do the same operations lane by lane, so that all give the same
// bits.
#include <bit>
#include <cmath>

#include "ops/moe/moe_constants.h"
#include "ops/moe/moe_kernels.h"

namespace qnext::ops::scalar {

namespace {

// exp(x) by its nearest power of two: 2^n * p(x - n ln 2).
float exponential(float x) {
  using namespace exp_constants;
  // Written so that NaN passes through.
  x = x < lowest ? lowest : x;
  x = x > highest ? highest : x;
  const float n = std::nearbyint(x * log2_e);
  const float r = std::fma(n, -ln2_low, std::fma(n, -ln2_high, x));
  float p = coefficients[0];
  for (int i = 1; i < terms; ++i) p = std::fma(p, r, coefficients[i]);
  if (std::isnan(n)) return n;
  return p * std::bit_cast<float>(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23);
}

}  // namespace

void swiglu(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
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
