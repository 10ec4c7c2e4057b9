#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/cuda_error.h"
#include "ops/embedding/embedding_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = 256;

// A block a row; tokens and row numbers are looked up alike.
template <typename Stored>
__global__ void gather_kernel(const Stored* table, int64_t table_stride, int64_t width,
                              const int32_t* index, float* out, int64_t out_stride) {
  const Stored* from = table + index[blockIdx.x] * table_stride;
  float* to = out + blockIdx.x * out_stride;
  for (int64_t i = threadIdx.x; i < width; i += threads) to[i] = static_cast<float>(from[i]);
}

template <typename Stored>
void gather(cudaStream_t stream, const void* table, int64_t table_stride, int64_t width,
            const int32_t* index, int64_t rows, float* out, int64_t out_stride) {
  if (rows == 0) return;
  gather_kernel<<<static_cast<unsigned>(rows), threads, 0, stream>>>(
      static_cast<const Stored*>(table), table_stride, width, index, out, out_stride);
  check_launch("gather of rows");
}

}  // namespace

void embed(cudaStream_t stream, DType dtype, const void* table, int64_t width,
           const int32_t* tokens, int64_t rows, float* out, int64_t out_stride) {
  switch (dtype) {
    case DType::f32:
      return gather<float>(stream, table, width, width, tokens, rows, out, out_stride);
    case DType::f16:
      return gather<__half>(stream, table, width, width, tokens, rows, out, out_stride);
    case DType::bf16:
      return gather<__nv_bfloat16>(stream, table, width, width, tokens, rows, out, out_stride);
    default:
      fail_cuda("the CUDA backend reads embeddings in F32, F16 or BF16 only: convert the model");
  }
}

void gather_rows(cudaStream_t stream, const float* x, int64_t x_stride, int64_t width,
                 const int32_t* row_of, int64_t rows, float* out, int64_t out_stride) {
  gather<float>(stream, x, x_stride, width, row_of, rows, out, out_stride);
}

}  // namespace qnext::ops::cuda
