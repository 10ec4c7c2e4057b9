// Root mean square normalisation (Zhang & Sennrich 2019) of rows, in fp32.
//
//   rms_norm        y = x * rsqrt(mean(x^2) + eps) * (1 + w)        zero-centred weight
//   gated_rms_norm  y = x * rsqrt(mean(x^2) + eps) * w * silu(z)    plain weight, Gated DeltaNet
//
// A row's bits depend on that row alone. y may be x itself (same stride), else no overlap.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"

namespace qnext::ops {

// x, y [rows, width], rows x_stride and y_stride floats apart; weight [width].
void rms_norm(ThreadPool& pool, const float* x, int64_t x_stride, const float* weight, float eps,
              int64_t rows, int64_t width, float* y, int64_t y_stride);

// One row, in the calling thread.
void rms_norm_row(const float* x, const float* weight, float eps, int64_t width, float* y);
void gated_rms_norm_row(const float* x, const float* gate, const float* weight, float eps,
                        int64_t width, float* y);

// fp64 oracles.
void rms_norm_oracle(const double* x, const double* weight, double eps, int64_t width, double* y);
void gated_rms_norm_oracle(const double* x, const double* gate, const double* weight, double eps,
                           int64_t width, double* y);

}  // namespace qnext::ops
