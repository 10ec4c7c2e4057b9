// Depthwise causal convolution over time, without bias, then silu: the short convolution of Gated
// DeltaNet.
//
//   y[t, c] = silu(sum over j < width of w[c, j] * x[t - width + 1 + j, c])
//
// Inputs before a sequence's first row come from its state: the last width - 1 inputs, oldest
// first. The sum runs over j in ascending order, so a row's bits do not depend on how the sequence
// was split.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"

namespace qnext::ops {

// Rows of one sequence within a batch, in time order.
struct ConvSequence {
  int64_t first_row = 0;
  int64_t rows = 0;
  const float* state_in = nullptr;  // [width - 1, channels]; null: zeros (start of a sequence)
  // [rows] pointers: where the state after each row goes, [width - 1, channels]; null: not kept.
  // The last one may be state_in itself.
  float* const* state_out = nullptr;
};

// x, y [all rows, channels], rows x_stride and y_stride floats apart; weight [channels, width].
// y does not overlap x.
void causal_conv(ThreadPool& pool, const float* x, int64_t x_stride, const float* weight,
                 int64_t channels, int64_t width, std::span<const ConvSequence> sequences, float* y,
                 int64_t y_stride);

// fp64 oracle of one sequence from a state [width - 1, channels], which it advances.
void causal_conv_oracle(const double* x, const double* weight, int64_t rows, int64_t channels,
                        int64_t width, double* state, double* y);

}  // namespace qnext::ops
