// The kernels of gated_experts() that are not products, one set for each instruction set. No inline
// functions here: the files that include this header are compiled with different flags.
#pragma once

#include <stdint.h>

namespace qnext::ops {

// out[i] = silu(gate[i]) * up[i]; the same bits on every instruction set. out may be gate.
using SwigluKernel = void (*)(const float* gate, const float* up, int64_t count, float* out);

// y[i] += sum over slots s, in order, of weights[s] * parts[s * stride + i].
using CombineKernel = void (*)(const float* parts, int64_t stride, const float* weights,
                               int64_t slots, int64_t count, float* y);

#define QNEXT_MOE_KERNELS                                                               \
  void swiglu(const float* gate, const float* up, int64_t count, float* out);           \
  void combine(const float* parts, int64_t stride, const float* weights, int64_t slots, \
               int64_t count, float* y);

namespace scalar {
QNEXT_MOE_KERNELS
}
namespace avx2 {
QNEXT_MOE_KERNELS
}
namespace avx512 {
QNEXT_MOE_KERNELS
}
#undef QNEXT_MOE_KERNELS

}  // namespace qnext::ops
