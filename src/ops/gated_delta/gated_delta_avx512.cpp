#include "ops/activation/vector_avx512.h"
#include "ops/gated_delta/gated_delta_vector.h"

namespace qnext::ops {

const DeltaKernels delta_avx512{delta_advance_vector, l2_normalize_vector};

}  // namespace qnext::ops
