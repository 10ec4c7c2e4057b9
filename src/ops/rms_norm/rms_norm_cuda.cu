#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/rms_norm/rms_norm_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int row_threads = 256;
constexpr int head_warps = 4;

// A block a row.
__global__ void rms_norm_kernel(const float* x, int64_t x_stride, const float* weight, float eps,
                                int64_t width, float* y, int64_t y_stride) {
  x += blockIdx.x * x_stride;
  y += blockIdx.x * y_stride;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < width; i += row_threads) sum = fmaf(x[i], x[i], sum);
  const float mean = block_sum<row_threads>(sum) / static_cast<float>(width);
  const float scale = 1.0f / sqrtf(mean + eps);
  for (int64_t i = threadIdx.x; i < width; i += row_threads)
    y[i] = x[i] * scale * (1.0f + weight[i]);
}

// A warp a row: rows are heads, and short.
__global__ void gated_rms_norm_kernel(const float* x, const float* gate, const float* weight,
                                      float eps, int64_t rows, int64_t width, float* y) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * head_warps + threadIdx.x / warp_lanes;
  if (row >= rows) return;
  const int lane = threadIdx.x % warp_lanes;
  x += row * width;
  gate += row * width;
  y += row * width;
  float sum = 0;
  for (int64_t i = lane; i < width; i += warp_lanes) sum = fmaf(x[i], x[i], sum);
  const float scale = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(width) + eps);
  for (int64_t i = lane; i < width; i += warp_lanes)
    y[i] = x[i] * scale * weight[i] * silu(gate[i]);
}

}  // namespace

void rms_norm(cudaStream_t stream, const float* x, int64_t x_stride, const float* weight, float eps,
              int64_t rows, int64_t width, float* y, int64_t y_stride) {
  if (rows == 0) return;
  rms_norm_kernel<<<static_cast<unsigned>(rows), row_threads, 0, stream>>>(x, x_stride, weight, eps,
                                                                           width, y, y_stride);
  check_launch("rms_norm");
}

void gated_rms_norm(cudaStream_t stream, const float* x, const float* gate, const float* weight,
                    float eps, int64_t rows, int64_t width, float* y) {
  if (rows == 0) return;
  const auto blocks = static_cast<unsigned>((rows + head_warps - 1) / head_warps);
  gated_rms_norm_kernel<<<blocks, head_warps * warp_lanes, 0, stream>>>(x, gate, weight, eps, rows,
                                                                        width, y);
  check_launch("gated_rms_norm");
}

}  // namespace qnext::ops::cuda
