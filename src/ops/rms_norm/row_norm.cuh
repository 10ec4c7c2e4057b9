// The scale of a zero-centred RMSNorm row, summed in one order whoever computes it.
//
// A row's float4s are dealt to 8 runs x 32 lanes, float4 j to lane j % 32 of run j / 32 % 8; what
// is left behind the last whole float4 goes to run 0, one column a lane. A lane sums its squares in
// ascending columns, the runs are added in pairs, then the lanes in a butterfly. One warp can do it
// alone (eight independent chains), or eight warps a run each with one exchange: the same bits.
#pragma once

#include <cstdint>

#include "ops/activation/activation_device.h"

namespace qnext::ops::cuda {

constexpr int norm_runs = 8;

inline __device__ void add_squares(float& sum, const float4& v) {
  sum = fmaf(v.x, v.x, sum);
  sum = fmaf(v.y, v.y, sum);
  sum = fmaf(v.z, v.z, sum);
  sum = fmaf(v.w, v.w, sum);
}

// One lane's share of run `run`. x is 16-byte aligned.
inline __device__ float squares_of_run(const float* x, int64_t columns, int run, int lane) {
  const int64_t whole = columns / 4;
  float sum = 0;
  for (int64_t j = run * warp_lanes + lane; j < whole; j += norm_runs * warp_lanes) {
    add_squares(sum, reinterpret_cast<const float4*>(x)[j]);
  }
  if (const int64_t rest = 4 * whole + lane; run == 0 && rest < columns)
    sum = fmaf(x[rest], x[rest], sum);
  return sum;
}

// 1 / sqrt(mean(x^2) + eps), in every lane of the warp that calls it with its lanes' runs.
inline __device__ float norm_scale(const float (&runs)[norm_runs], int64_t columns, float eps) {
  const float sum =
      ((runs[0] + runs[1]) + (runs[2] + runs[3])) + ((runs[4] + runs[5]) + (runs[6] + runs[7]));
  return 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(columns) + eps);
}

// The same by one warp alone, with the loads of all runs in flight together.
inline __device__ float row_norm_scale(const float* x, int64_t columns, float eps, int lane) {
  const int64_t whole = columns / 4;
  float runs[norm_runs] = {};
  for (int64_t first = lane; first < whole; first += norm_runs * warp_lanes) {
    float4 v[norm_runs];
#pragma unroll
    for (int run = 0; run < norm_runs; ++run) {
      const int64_t j = first + run * warp_lanes;
      v[run] = j < whole ? reinterpret_cast<const float4*>(x)[j] : float4{0, 0, 0, 0};
    }
#pragma unroll
    for (int run = 0; run < norm_runs; ++run) add_squares(runs[run], v[run]);
  }
  if (const int64_t rest = 4 * whole + lane; rest < columns)
    runs[0] = fmaf(x[rest], x[rest], runs[0]);
  return norm_scale(runs, columns, eps);
}

// One value of the row behind its norm.
inline __device__ float normed(float x, float scale, float weight) {
  return x * scale * (1.0f + weight);
}

}  // namespace qnext::ops::cuda
