// Masks of allowed tokens on the GPU, as ops::sample takes them; launches as in sample_cuda.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace qnext::ops::cuda {

// 32-bit words of a row's mask.
constexpr int64_t mask_words(int64_t vocabulary) {
  return (vocabulary + 31) / 32;
}

// logits[row_of[r]][t] = -infinity where bit t % 32 of masks[r][t / 32] is not set, for r < count;
// a NaN stays, so that damaged weights are found. logits [.., vocabulary], rows `stride` floats
// apart; masks [count, mask_words(vocabulary)]; row_of names each row once.
void mask_logits(cudaStream_t stream, float* logits, int64_t stride, int64_t vocabulary,
                 const uint32_t* masks, const int32_t* row_of, int64_t count);

}  // namespace qnext::ops::cuda
