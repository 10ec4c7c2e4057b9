#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/sampling/argmax_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = 1024;
constexpr int warps = threads / warp_lanes;

// The better of two candidates: a NaN beats all, then the larger value, then the lower index.
struct Best {
  float value = -INFINITY;
  int32_t index = INT32_MAX;

  __device__ void meet(float other, int32_t other_index) {
    const bool nan = isnan(value);
    const bool other_nan = isnan(other);
    const bool better = nan || other_nan ? other_nan && !nan
                                         : other > value || (other == value && other_index < index);
    if (!better) return;
    value = other;
    index = other_index;
  }

  __device__ void meet_warp() {
    for (int distance = warp_lanes / 2; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(whole_warp, value, distance);
      const int32_t other_index = __shfl_xor_sync(whole_warp, index, distance);
      meet(other, other_index);
    }
  }
};

// A block a row.
__global__ void argmax_kernel(const float* logits, int64_t stride, int64_t width, int32_t* index) {
  __shared__ float values[warps];
  __shared__ int32_t indices[warps];
  logits += blockIdx.x * stride;
  Best best;
  for (int64_t i = threadIdx.x; i < width; i += threads)
    best.meet(logits[i], static_cast<int32_t>(i));
  best.meet_warp();
  const int lane = threadIdx.x % warp_lanes;
  const int warp = threadIdx.x / warp_lanes;
  if (lane == 0) {
    values[warp] = best.value;
    indices[warp] = best.index;
  }
  __syncthreads();
  if (warp != 0) return;
  best.value = values[lane];
  best.index = indices[lane];
  best.meet_warp();
  if (lane == 0) index[blockIdx.x] = isfinite(best.value) ? best.index : -1;
}
static_assert(warps == warp_lanes);

}  // namespace

void argmax(cudaStream_t stream, const float* logits, int64_t stride, int64_t rows, int64_t width,
            int32_t* index) {
  if (rows == 0) return;
  argmax_kernel<<<static_cast<unsigned>(rows), threads, 0, stream>>>(logits, stride, width, index);
  check_launch("argmax");
}

}  // namespace qnext::ops::cuda
