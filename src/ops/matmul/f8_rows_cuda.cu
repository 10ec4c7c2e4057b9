// A warp a row: its largest value, then its values once more, which the L1 cache still holds.
#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/launch_cuda.cuh"
#include "ops/matmul/f8_rows.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int warps = 8;
constexpr int run = 16;  // columns of a lane at a time

// Sixteen columns from `column` on; zeros behind the last.
__device__ void load_run(const Bf16* row, int column, int columns, float (&x)[run]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = column + 8 * half;
    uint4 bits{};
    if (first < columns) bits = *reinterpret_cast<const uint4*>(row + first);
    const uint32_t words[] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float low = __uint_as_float(words[i] << 16);
      const float high = __uint_as_float(words[i] & 0xFFFF0000u);
      x[8 * half + 2 * i] = first + 2 * i < columns ? low : 0;
      x[8 * half + 2 * i + 1] = first + 2 * i + 1 < columns ? high : 0;
    }
  }
}

__global__ void __launch_bounds__(warps* warp_lanes)
    round_rows(const Bf16* x, int64_t x_stride, int64_t rows, int columns, F8Rows to) {
  wait_for_earlier_kernels();
  let_next_kernel_start();
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int64_t row = int64_t{blockIdx.x} * warps + threadIdx.x / warp_lanes;
  if (row >= rows) return;
  const Bf16* const from = x + row * x_stride;
  float largest = 0;
#pragma unroll 4
  for (int column = lane * run; column < columns; column += warp_lanes * run) {
    float values[run];
    load_run(from, column, columns, values);
#pragma unroll
    for (float value : values) largest = fmaxf(largest, fabsf(value));
  }
#pragma unroll
  for (int distance = warp_lanes / 2; distance > 0; distance /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(whole_warp, largest, distance));
  const F8Unit scale(largest);
  if (lane == 0) to.unit[row] = scale.unit;
#pragma unroll 4
  for (int column = lane * run; column < columns; column += warp_lanes * run) {
    float values[run];
    load_run(from, column, columns, values);
    uint32_t words[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const auto pair = [&](int at) {
        return f8_pair(values[at] * scale.factor, values[at + 1] * scale.factor);
      };
      words[t] = pair(2 * t) | pair(8 + 2 * t) << 16;
    }
    *reinterpret_cast<uint4*>(to.values + row * to.stride + column) = {words[0], words[1], words[2],
                                                                       words[3]};
  }
}

}  // namespace

void round_rows_to_f8(cudaStream_t stream, const Bf16* x, int64_t x_stride, int64_t rows,
                      int64_t columns, const F8Rows& to) {
  if (rows == 0) return;
  launch_overlapped("round_rows_to_f8", round_rows,
                    static_cast<unsigned>((rows + warps - 1) / warps), warps * warp_lanes, 0,
                    stream, x, x_stride, rows, static_cast<int>(columns), to);
}

}  // namespace qnext::ops::cuda
