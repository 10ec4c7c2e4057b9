#include "ops/activation/vector_avx512.h"
#include "ops/rms_norm/rms_norm_vector.h"

namespace qnext::ops {

void rms_norm_row_avx512(const float* x, const float* gate, const float* weight, float eps,
                         int64_t width, float* y) {
  rms_norm_row_vector(x, gate, weight, eps, width, y);
}

}  // namespace qnext::ops
