// Passes over a whole vocabulary of logits, one variant an instruction set. The sums are the same
// on all of them: doubles, added in one order, without fused operations.
#pragma once

#include <stdint.h>

namespace qnext::ops {

// Logits are scanned in blocks; a block's largest value tells whether it is worth another look.
constexpr int64_t logit_block = 64;

struct SamplingKernels {
  // The largest logit of every block (-infinity where all are), and whether any is NaN.
  bool (*block_maxima)(const float* logits, int64_t count, float* maxima);
  // Sums of exp((x - maximum) * inverse_temperature) of every block.
  void (*block_sums)(const float* logits, int64_t count, double maximum, double inverse_temperature,
                     double* sums);
};

extern const SamplingKernels sampling_scalar;
extern const SamplingKernels sampling_avx2;
extern const SamplingKernels sampling_avx512;

}  // namespace qnext::ops
