#include <cuda_bf16.h>

#include <algorithm>

#include "ops/bf16_pair.cuh"
#include "ops/embedding/round_rows_cuda.h"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = 256;

// One block a row.
__global__ void round_rows_kernel(const float* x, int64_t x_stride, int64_t columns,
                                  const int32_t* row_of, Bf16* out, int64_t out_stride) {
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x;
  const float* from = x + (row_of ? row_of[row] : row) * x_stride;
  Bf16* to = out + row * out_stride;
  const int64_t whole = columns / 4;
  for (int64_t i = threadIdx.x; i < whole; i += threads) {
    const float4 v = reinterpret_cast<const float4*>(from)[i];
    reinterpret_cast<uint2*>(to)[i] = {bf16_pair(v.x, v.y), bf16_pair(v.z, v.w)};
  }
  for (int64_t i = 4 * whole + threadIdx.x; i < columns; i += threads)
    to[i] = __bfloat16_as_ushort(__float2bfloat16_rn(from[i]));
}

}  // namespace

void round_rows(cudaStream_t stream, const float* x, int64_t x_stride, int64_t columns,
                const int32_t* row_of, int64_t rows, Bf16* out, int64_t out_stride) {
  if (rows == 0) return;
  launch_overlapped("round_rows", round_rows_kernel, static_cast<unsigned>(rows), threads, 0,
                    stream, x, x_stride, columns, row_of, out, out_stride);
}

}  // namespace qnext::ops::cuda
