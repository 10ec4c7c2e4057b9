#include "ops/rope/rope.h"

namespace qnext::ops {

void rope_oracle(double* head, const double* cosine, const double* sine, int64_t rotary_dims) {
  const int64_t half = rotary_dims / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double first = head[i];
    const double second = head[i + half];
    head[i] = first * cosine[i] - second * sine[i];
    head[i + half] = second * cosine[i] + first * sine[i];
  }
}

}  // namespace qnext::ops
