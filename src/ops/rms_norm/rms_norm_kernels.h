// The variants of the row kernels, one an instruction set; rms_norm.cpp chooses.
#pragma once

#include <stdint.h>

namespace qnext::ops {

// gate null: y = x * r * (1 + w). Else y = x * r * w * silu(gate).
using RmsNormKernel = void (*)(const float* x, const float* gate, const float* weight, float eps,
                               int64_t width, float* y);

void rms_norm_row_scalar(const float* x, const float* gate, const float* weight, float eps,
                         int64_t width, float* y);
void rms_norm_row_avx2(const float* x, const float* gate, const float* weight, float eps,
                       int64_t width, float* y);
void rms_norm_row_avx512(const float* x, const float* gate, const float* weight, float eps,
                         int64_t width, float* y);

}  // namespace qnext::ops
