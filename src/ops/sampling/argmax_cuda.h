// The greedy choice on the GPU; conventions in ops/batch_cuda.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace qnext::ops::cuda {

// index[r] = where logits [rows, width] has row r's largest value, the lowest index among equals;
// -1 if the row holds a NaN or its largest value is infinite (the rows that sampling.h refuses).
void argmax(cudaStream_t stream, const float* logits, int64_t stride, int64_t rows, int64_t width,
            int32_t* index);

}  // namespace qnext::ops::cuda
