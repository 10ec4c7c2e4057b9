#include "ops/activation/vector_avx2.h"
#include "ops/gated_delta/gated_delta_vector.h"

namespace qnext::ops {

const DeltaKernels delta_avx2{delta_advance_vector, l2_normalize_vector};

}  // namespace qnext::ops
