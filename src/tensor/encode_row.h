// Floats to the quantised blocks of GGUF with as little error as a short search finds.
#pragma once

#include <cstddef>

#include "tensor/dtype.h"

namespace qnext {

// Writes `count` values, whole blocks, as blocks of `dtype`: any block type of DType, or f32, f16
// and bf16, which are rounded to nearest even.
//
// Minimised for each block is  sum_i importance[i] * (values[i] - decoded[i])^2.  Null stands for
// equal importance; importances are finite and not negative, and only their ratios matter: what is
// below 2^-16 of their mean over the row counts as that much.
//
// How: from several starting scales, rounding to the nearest level and weighted least squares for
// the scale (and minimum) given those levels take turns. Where scales are themselves small
// integers, several factors for them are tried, and for each run its neighbouring integers. Always
// among the candidates is plain rounding, the range of the values spread over the range of the
// levels, so the error is never above its error. Values of a block whose levels and scales reach
// the ends of their ranges come back exactly.
// q8_0 and q4_0 without importance are not searched for: their bits are those of tensor/blocks.h.
//
// The same bits on every machine. Throws Error naming the index where a value is NaN or infinite,
// or where values are so large that the f16 factor of their block is not finite. Factors below the
// smallest f16, 2^-24, become that or zero.
void encode_row(DType dtype, const float* values, const float* importance, size_t count,
                void* blocks);

// Whether encode_row() knows the type.
bool can_encode(DType dtype);

}  // namespace qnext
