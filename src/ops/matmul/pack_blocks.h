// Part of pack_weights(): a source that is stored in blocks.
#pragma once

#include "ops/matmul/kernels.h"
#include "ops/matmul/matmul.h"

namespace qnext::ops {

// What pack kernels encode to for panels of q8_0 or q4_0.
Encoded encoded(DType format);

// As pack_weights(). `pack_f32` packs what has to be widened first.
void pack_blocks(const WeightMatrix& source, DType format, PackKernel pack_f32, void* packed);

}  // namespace qnext::ops
