// Ladder: rms_norm_cuda.cu reads a row twice with scalar loads. A warp a row that holds it in
// registers was as fast over many rows, but took 1.7 us for one, twice as long for two halves: a
// thousand instructions of straight-line code, fetched as they run. Here a block of eight warps
// takes a row, a warp a run of row_norm.cuh: each thread holds two float4s of a row of 2048, its
// weights are fetched before the kernel waits for the one before it, and one barrier joins the
// runs.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/cuda_error.h"
#include "ops/bf16_pair.cuh"
#include "ops/launch_cuda.cuh"
#include "ops/rms_norm/row_norm.cuh"
#include "ops/rms_norm/row_norms_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = norm_runs * warp_lanes;
// float4s that a thread holds: rows of up to 2048 columns are read once, of longer ones the rest is
// read again.
constexpr int held = 2;

__device__ float4 zeros() {
  return make_float4(0, 0, 0, 0);
}
__device__ float4 read_four(const float* x, int j) {
  return reinterpret_cast<const float4*>(x)[j];
}
__device__ float4 read_four(const __half* x, int j) {
  const uint2 bits = reinterpret_cast<const uint2*>(x)[j];
  const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&bits.x));
  const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&bits.y));
  return make_float4(low.x, low.y, high.x, high.y);
}
__device__ float4 read_four(const __nv_bfloat16* x, int j) {
  const uint2 bits = reinterpret_cast<const uint2*>(x)[j];
  return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xFFFF0000u),
                     __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xFFFF0000u));
}

__device__ void write_one(float* y, float value) {
  *y = value;
}
__device__ void write_one(Bf16* y, float value) {
  *y = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
__device__ void write_four(float* y, int j, const float4& value) {
  reinterpret_cast<float4*>(y)[j] = value;
}
__device__ void write_four(Bf16* y, int j, const float4& value) {
  reinterpret_cast<uint2*>(y)[j] = {bf16_pair(value.x, value.y), bf16_pair(value.z, value.w)};
}

template <typename Stored>
__device__ void hold(float4 (&fours)[held], const Stored* x, int whole) {
#pragma unroll
  for (int i = 0; i < held; ++i) {
    const int j = i * threads + static_cast<int>(threadIdx.x);
    fours[i] = j < whole ? read_four(x, j) : zeros();
  }
}

__device__ float add_squares(float sum, const float4& v) {
  sum = fmaf(v.x, v.x, sum);
  sum = fmaf(v.y, v.y, sum);
  sum = fmaf(v.z, v.z, sum);
  return fmaf(v.w, v.w, sum);
}
__device__ float4 normed_four(const float4& x, float scale, const float4& weight) {
  return make_float4(normed(x.x, scale, weight.x), normed(x.y, scale, weight.y),
                     normed(x.z, scale, weight.z), normed(x.w, scale, weight.w));
}

// One row by the block; float4 j belongs to run j / 32 % 8 and its lane j % 32, as in row_norm.cuh
// (the zeros held behind the row add nothing). `weights` are held from `weight`.
template <typename Stored, typename Result>
__device__ void norm_row(const Stored* x, const float* weight, const float4 (&weights)[held],
                         float eps, int columns, Result* y) {
  __shared__ float sums[norm_runs][warp_lanes];
  const auto thread = static_cast<int>(threadIdx.x);
  const int lane = thread % warp_lanes;
  const int whole = columns / 4;
  const int rest = 4 * whole + thread;
  float4 fours[held];
  hold(fours, x, whole);
  float sum = 0;
#pragma unroll
  for (const float4& four : fours) sum = add_squares(sum, four);
  for (int j = held * threads + thread; j < whole; j += threads)
    sum = add_squares(sum, read_four(x, j));
  float last = 0;
  if (rest < columns) {
    last = static_cast<float>(x[rest]);
    sum = fmaf(last, last, sum);
  }
  sums[thread / warp_lanes][lane] = sum;
  __syncthreads();
  float runs[norm_runs];
#pragma unroll
  for (int run = 0; run < norm_runs; ++run) runs[run] = sums[run][lane];
  const float scale = norm_scale(runs, columns, eps);
#pragma unroll
  for (int i = 0; i < held; ++i) {
    const int j = i * threads + thread;
    if (j < whole) write_four(y, j, normed_four(fours[i], scale, weights[i]));
  }
  for (int j = held * threads + thread; j < whole; j += threads)
    write_four(y, j, normed_four(read_four(x, j), scale, read_four(weight, j)));
  if (rest < columns) write_one(y + rest, normed(last, scale, weight[rest]));
}

template <typename Result>
__device__ void clear_row(Result* y, int columns) {
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += threads) write_one(y + i, 0);
}

template <typename Result>
__global__ void __launch_bounds__(threads)
    rms_norm_rows_kernel(const float* x, int64_t x_stride, const int32_t* row_of,
                         const float* weight, float eps, int columns, Result* y, int64_t y_stride) {
  float4 weights[held];
  hold(weights, weight, columns / 4);
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x;
  const int64_t from = row_of == nullptr ? row : row_of[row];
  y += row * y_stride;
  if (from < 0)
    clear_row(y, columns);
  else
    norm_row(x + from * x_stride, weight, weights, eps, columns, y);
}

// Blocks [0, rows) take the embeddings, the others the hidden rows.
template <typename Stored>
__global__ void __launch_bounds__(threads)
    mtp_input_kernel(MtpInput input, int64_t rows, int columns, Bf16* y, int64_t y_stride) {
  const bool embeds = blockIdx.x < rows;
  const int64_t row = embeds ? blockIdx.x : blockIdx.x - rows;
  const float* weight = embeds ? input.embedding_weight : input.hidden_weight;
  float4 weights[held];
  hold(weights, weight, columns / 4);
  let_next_kernel_start();
  wait_for_earlier_kernels();
  y += row * y_stride + (embeds ? 0 : columns);
  const int32_t* row_of = embeds ? input.tokens : input.row_of;
  const int64_t from = row_of == nullptr ? row : row_of[row];
  if (from < 0 || (embeds && from >= input.vocabulary))
    clear_row(y, columns);
  else if (embeds)
    norm_row(static_cast<const Stored*>(input.table) + from * columns, weight, weights, input.eps,
             columns, y);
  else
    norm_row(input.hidden + from * input.hidden_stride, weight, weights, input.eps, columns, y);
}

template <typename Result>
void norm_rows(cudaStream_t stream, const float* x, int64_t x_stride, const int32_t* row_of,
               const float* weight, float eps, int64_t rows, int64_t columns, Result* y,
               int64_t y_stride) {
  if (rows == 0) return;
  launch_overlapped("rms_norm_rows", rms_norm_rows_kernel<Result>, static_cast<unsigned>(rows),
                    threads, 0, stream, x, x_stride, row_of, weight, eps, columns, y, y_stride);
}

template <typename Stored>
void launch_mtp_input(cudaStream_t stream, const MtpInput& input, int64_t rows, int64_t columns,
                      Bf16* y, int64_t y_stride) {
  launch_overlapped("mtp_input_rows", mtp_input_kernel<Stored>, static_cast<unsigned>(2 * rows),
                    threads, 0, stream, input, rows, columns, y, y_stride);
}

}  // namespace

void rms_norm_rows(cudaStream_t stream, const float* x, int64_t x_stride, const int32_t* row_of,
                   const float* weight, float eps, int64_t rows, int64_t columns, Bf16* y,
                   int64_t y_stride) {
  norm_rows(stream, x, x_stride, row_of, weight, eps, rows, columns, y, y_stride);
}

void rms_norm_rows(cudaStream_t stream, const float* x, int64_t x_stride, const int32_t* row_of,
                   const float* weight, float eps, int64_t rows, int64_t columns, float* y,
                   int64_t y_stride) {
  norm_rows(stream, x, x_stride, row_of, weight, eps, rows, columns, y, y_stride);
}

void mtp_input_rows(cudaStream_t stream, const MtpInput& input, int64_t rows, int64_t columns,
                    Bf16* y, int64_t y_stride) {
  if (rows == 0) return;
  switch (input.dtype) {
    case DType::f32:
      return launch_mtp_input<float>(stream, input, rows, columns, y, y_stride);
    case DType::f16:
      return launch_mtp_input<__half>(stream, input, rows, columns, y, y_stride);
    case DType::bf16:
      return launch_mtp_input<__nv_bfloat16>(stream, input, rows, columns, y, y_stride);
    default:
      fail_cuda("the CUDA backend reads embeddings in F32, F16 or BF16 only: convert the model");
  }
}

}  // namespace qnext::ops::cuda
