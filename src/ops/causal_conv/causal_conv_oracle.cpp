#include "ops/activation/activation.h"
#include "ops/causal_conv/causal_conv.h"

namespace qnext::ops {

void causal_conv_oracle(const double* x, const double* weight, int64_t rows, int64_t channels,
                        int64_t width, double* state, double* y) {
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t c = 0; c < channels; ++c) {
      const double now = x[t * channels + c];
      double sum = weight[c * width + width - 1] * now;
      for (int64_t j = 0; j + 1 < width; ++j)
        sum += weight[c * width + j] * state[j * channels + c];
      y[t * channels + c] = silu(sum);
      for (int64_t j = 0; j + 2 < width; ++j)
        state[j * channels + c] = state[(j + 1) * channels + c];
      if (width > 1) state[(width - 2) * channels + c] = now;
    }
  }
}

}  // namespace qnext::ops
