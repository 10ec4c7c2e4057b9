// A block a row; a thread takes eight values at a time, so that 2048 of them are one access each of
// 256 threads.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/cuda_error.h"
#include "ops/embedding/embed_rows_cuda.h"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = 256;
constexpr int run = 8;

// Eight values or, with `Stored` = `Result`, as many of them as are left.
template <typename Stored, typename Result>
__global__ void pick_rows_kernel(const Stored* table, int64_t stride, int64_t table_rows,
                                 int64_t columns, const int32_t* index, Result* out,
                                 int64_t out_stride) {
  struct alignas(16) From {
    Stored values[run];
  };
  struct alignas(16) To {
    Result values[run];
  };
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int64_t row = index[blockIdx.x];
  const bool inside = row >= 0 && row < table_rows;
  const Stored* from = table + row * stride;
  Result* to = out + blockIdx.x * out_stride;
  const int64_t whole = columns / run;
  for (int64_t i = threadIdx.x; i < whole; i += threads) {
    To values{};
    if (inside) {
      const From stored = reinterpret_cast<const From*>(from)[i];
#pragma unroll
      for (int j = 0; j < run; ++j) values.values[j] = static_cast<Result>(stored.values[j]);
    }
    reinterpret_cast<To*>(to)[i] = values;
  }
  for (int64_t i = whole * run + threadIdx.x; i < columns; i += threads)
    to[i] = inside ? static_cast<Result>(from[i]) : Result{};
}

template <typename Stored, typename Result>
void launch(cudaStream_t stream, const void* table, int64_t stride, int64_t table_rows,
            int64_t columns, const int32_t* index, int64_t rows, Result* out, int64_t out_stride) {
  if (rows == 0) return;
  launch_overlapped("pick_rows", pick_rows_kernel<Stored, Result>, static_cast<unsigned>(rows),
                    threads, 0, stream, static_cast<const Stored*>(table), stride, table_rows,
                    columns, index, out, out_stride);
}

}  // namespace

void embed_rows(cudaStream_t stream, DType dtype, const void* table, int64_t vocabulary,
                int64_t columns, const int32_t* tokens, int64_t rows, float* out,
                int64_t out_stride) {
  const auto from = [&]<typename Stored>() {
    launch<Stored>(stream, table, columns, vocabulary, columns, tokens, rows, out, out_stride);
  };
  switch (dtype) {
    case DType::f32:
      return from.template operator()<float>();
    case DType::f16:
      return from.template operator()<__half>();
    case DType::bf16:
      return from.template operator()<__nv_bfloat16>();
    default:
      fail_cuda("the CUDA backend reads embeddings in F32, F16 or BF16 only: convert the model");
  }
}

void pick_rows(cudaStream_t stream, const float* x, int64_t x_stride, int64_t columns,
               const int32_t* row_of, int64_t rows, float* out, int64_t out_stride) {
  launch<float>(stream, x, x_stride, INT64_MAX, columns, row_of, rows, out, out_stride);
}

void pick_rows(cudaStream_t stream, const Bf16* x, int64_t x_stride, int64_t columns,
               const int32_t* row_of, int64_t rows, Bf16* out, int64_t out_stride) {
  launch<Bf16>(stream, x, x_stride, INT64_MAX, columns, row_of, rows, out, out_stride);
}

}  // namespace qnext::ops::cuda
