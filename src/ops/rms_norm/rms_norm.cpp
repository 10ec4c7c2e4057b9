#include "ops/rms_norm/rms_norm.h"

#include <algorithm>

#include "base/cpu_features.h"
#include "ops/rms_norm/rms_norm_kernels.h"

namespace qnext::ops {

namespace {

constexpr IsaTable<RmsNormKernel> kernels{rms_norm_row_scalar, rms_norm_row_avx2,
                                          rms_norm_row_avx512};

// A few thousand values are worth the microsecond that sharing them costs.
constexpr int64_t values_per_share = 8192;

}  // namespace

void rms_norm(ThreadPool& pool, const float* x, int64_t x_stride, const float* weight, float eps,
              int64_t rows, int64_t width, float* y, int64_t y_stride) {
  const RmsNormKernel kernel = kernels.choose();
  const int64_t grain = std::max<int64_t>(1, values_per_share / std::max<int64_t>(1, width));
  pool.parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      kernel(x + row * x_stride, nullptr, weight, eps, width, y + row * y_stride);
  });
}

void rms_norm_row(const float* x, const float* weight, float eps, int64_t width, float* y) {
  kernels.choose()(x, nullptr, weight, eps, width, y);
}

void gated_rms_norm_row(const float* x, const float* gate, const float* weight, float eps,
                        int64_t width, float* y) {
  kernels.choose()(x, gate, weight, eps, width, y);
}

}  // namespace qnext::ops
