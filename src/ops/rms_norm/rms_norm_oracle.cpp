#include <cmath>

#include "ops/activation/activation.h"
#include "ops/rms_norm/rms_norm.h"

namespace qnext::ops {

namespace {

double inverse_root_mean_square(const double* x, double eps, int64_t width) {
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
  return 1 / std::sqrt(sum / static_cast<double>(width) + eps);
}

}  // namespace

void rms_norm_oracle(const double* x, const double* weight, double eps, int64_t width, double* y) {
  const double scale = inverse_root_mean_square(x, eps, width);
  for (int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * (1 + weight[i]);
}

void gated_rms_norm_oracle(const double* x, const double* gate, const double* weight, double eps,
                           int64_t width, double* y) {
  const double scale = inverse_root_mean_square(x, eps, width);
  for (int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * weight[i] * silu(gate[i]);
}

}  // namespace qnext::ops
