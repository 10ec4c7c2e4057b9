#include <algorithm>

#include "base/cuda_error.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/warp_dot.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int warps = 8;

// A warp takes R rows and C outputs at a time; the warps of a block share the rows.
template <DType dtype, int V, int R, int C>
__global__ void __launch_bounds__(warps* warp_lanes)
    matmul_kernel(const float* x, int64_t x_stride, int64_t rows, WeightMatrix w, const float* bias,
                  float* y, int64_t y_stride, bool accumulate) {
  const int64_t n0 = (static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / warp_lanes) * C;
  if (n0 >= w.rows) return;
  for (int64_t r0 = static_cast<int64_t>(blockIdx.y) * R; r0 < rows;
       r0 += static_cast<int64_t>(gridDim.y) * R) {
    float sums[R][C];
    warp_dots<dtype, V, R, C>(w, n0, x + r0 * x_stride, x_stride, rows - r0, sums);
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        if (threadIdx.x % warp_lanes != (r * C + c) % warp_lanes || r0 + r >= rows ||
            n0 + c >= w.rows)
          continue;
        float* out = y + (r0 + r) * y_stride + n0 + c;
        float value = accumulate ? *out + sums[r][c] : sums[r][c];
        if (bias) value += bias[n0 + c];
        *out = value;
      }
    }
  }
}

template <DType dtype, int V, int R, int C>
void launch(cudaStream_t stream, const float* x, int64_t x_stride, int64_t rows,
            const WeightMatrix& w, const float* bias, float* y, int64_t y_stride, bool accumulate) {
  const auto columns = static_cast<unsigned>((w.rows + warps * C - 1) / (warps * C));
  const auto row_tiles = static_cast<unsigned>(std::min<int64_t>((rows + R - 1) / R, 65535));
  matmul_kernel<dtype, V, R, C><<<dim3(columns, row_tiles), warps * warp_lanes, 0, stream>>>(
      x, x_stride, rows, w, bias, y, y_stride, accumulate);
}

}  // namespace

void matmul(cudaStream_t stream, const float* x, int64_t x_stride, int64_t rows,
            const WeightMatrix& w, const float* bias, float* y, int64_t y_stride, bool accumulate) {
  if (rows == 0 || w.rows == 0) return;
  const bool wide = w.columns % 4 == 0 && x_stride % 4 == 0;
  // Only then is the order of a sum a property of the matrix.
  if (!wide && w.columns % 4 == 0) check_cuda(cudaErrorMisalignedAddress, "matmul");
  const auto run = [&]<DType dtype>() {
    // The tile does not touch the order of a sum.
    if (wide && rows == 1)
      launch<dtype, 4, 1, 1>(stream, x, x_stride, rows, w, bias, y, y_stride, accumulate);
    else if (wide)
      launch<dtype, 4, 8, 2>(stream, x, x_stride, rows, w, bias, y, y_stride, accumulate);
    else
      launch<dtype, 1, 4, 2>(stream, x, x_stride, rows, w, bias, y, y_stride, accumulate);
  };
  switch (w.dtype) {
    case DType::f32:
      run.template operator()<DType::f32>();
      break;
    case DType::f16:
      run.template operator()<DType::f16>();
      break;
    case DType::bf16:
      run.template operator()<DType::bf16>();
      break;
    case DType::f8_e4m3:
      run.template operator()<DType::f8_e4m3>();
      break;
    default:
      check_cuda(cudaErrorInvalidValue, "matmul of weights in a block format");
  }
  check_launch("matmul");
}

}  // namespace qnext::ops::cuda
