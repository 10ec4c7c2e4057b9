#include "ops/sampling/sampling_vector.h"

namespace qnext::ops {

const SamplingKernels sampling_avx512{block_maxima_vector, block_sums_vector};

}  // namespace qnext::ops
