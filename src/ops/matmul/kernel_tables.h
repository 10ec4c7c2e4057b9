// Kernels by weight type for the selected instruction set: what matmul() and gated_experts() share.
#pragma once

#include "base/cpu_features.h"
#include "ops/matmul/kernels.h"
#include "ops/matmul/layout.h"
#include "ops/matmul/matmul.h"

namespace qnext::ops {

TileKernel tile_kernel(DType dtype);
QuantizeKernel quantize_kernel();

// Row `row` of x as a weight of that type reads it: float or int8.
const void* activation_row(const Activations& x, DType weight, int64_t row);

// Rows [first, first + count) of x.
Activations rows_of(const Activations& x, int64_t first, int64_t count);

}  // namespace qnext::ops
