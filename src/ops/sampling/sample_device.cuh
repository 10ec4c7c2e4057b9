// What the sampling kernels share: the order of logits, weights in doubles exactly as
// sampling_vector.h computes them, the uniform number of a draw, sums over a block.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "ops/activation/activation_device.h"
#include "ops/sampling/sample_cuda.h"

namespace qnext::ops::cuda {

// A row of logits is shared out to the blocks of one cluster: eight, the largest that every GPU
// places, so that a row's pass takes an eighth of an SM's time and its 608 KB lie in shared memory.
constexpr int ranks = 8;

// Larger numbers for larger logits; equal for -0 and 0; NaN above all.
__device__ inline uint32_t order_of(float logit) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float logit_of(uint32_t order) {
  return __uint_as_float((order >> 31) != 0 ? order & 0x7FFFFFFFu : ~order);
}

// The better of two tokens: the larger logit, then the lower token.
struct Best {
  uint32_t order = 0;
  uint32_t token = 0xFFFFFFFFu;

  // Tokens must come in ascending order.
  __device__ void meet(float logit, uint32_t candidate) {
    const uint32_t other = order_of(logit);
    if (other <= order) return;
    order = other;
    token = candidate;
  }
  __device__ void meet_warp() {
    const uint32_t most = __reduce_max_sync(whole_warp, order);
    token = __reduce_min_sync(whole_warp, order == most ? token : 0xFFFFFFFFu);
    order = most;
  }
  // The rows that sampling.h refuses are not.
  __device__ bool valid() const {
    return order > order_of(-INFINITY) && order < order_of(INFINITY);
  }
};

// Every thread of the cluster gets the best of all. of_warp [warps] and of_rank [ranks] are shared
// memory that nobody else uses. Ends the barrier that every thread of the cluster has arrived at
// when its block began: before, another block's memory may not be there to write to.
template <int threads>
__device__ Best best_of_cluster(Best best, Best* of_warp, Best* of_rank) {
  constexpr int warps = threads / warp_lanes;
  static_assert(warps <= warp_lanes && ranks <= warp_lanes);
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  const int lane = threadIdx.x % warp_lanes;
  best.meet_warp();
  if (lane == 0) of_warp[threadIdx.x / warp_lanes] = best;
  __syncthreads();
  if (threadIdx.x < warp_lanes) {
    best = lane < warps ? of_warp[lane] : Best{};
    best.meet_warp();
  }
  cluster.barrier_wait();
  if (threadIdx.x < ranks) cluster.map_shared_rank(of_rank, lane)[cluster.block_rank()] = best;
  cluster.sync();
  best = lane < ranks ? of_rank[lane] : Best{};
  best.meet_warp();
  return best;
}

// exp(x) for x <= 0: exponentiate() of sampling_vector.h, operation by operation (this file is
// compiled without fused operations), so that every bit is the same.
__device__ inline double exponentiate(double x) {
  constexpr double magic = 0x1.8p52;
  constexpr double coefficients[] = {1.0 / 479001600,
                                     1.0 / 39916800,
                                     1.0 / 3628800,
                                     1.0 / 362880,
                                     1.0 / 40320,
                                     1.0 / 5040,
                                     1.0 / 720,
                                     1.0 / 120,
                                     1.0 / 24,
                                     1.0 / 6,
                                     0.5,
                                     1.0,
                                     1.0};
  const bool vanishes = x < -708.0;
  const double clamped = vanishes ? -708.0 : x;
  const double shifted = __dadd_rn(__dmul_rn(clamped, 1.4426950408889634), magic);
  const double n = __dadd_rn(shifted, -magic);
  const double r = __dadd_rn(__dadd_rn(clamped, -__dmul_rn(n, 0x1.62e42fee00000p-1)),
                             -__dmul_rn(n, 0x1.a39ef35793c76p-33));
  double sum = 1.0 / 6227020800;
#pragma unroll
  for (const double coefficient : coefficients) sum = __dadd_rn(__dmul_rn(sum, r), coefficient);
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(sum)) +
                        (static_cast<uint64_t>(__double_as_longlong(shifted)) << 52);
  return vanishes ? 0.0 : __longlong_as_double(static_cast<int64_t>(bits));
}

// Weights of tokens relative to the most probable one.
struct Tempered {
  double maximum;
  double inverse_temperature;

  __device__ double weight(float logit) const {
    return exponentiate(
        __dmul_rn(__dadd_rn(static_cast<double>(logit), -maximum), inverse_temperature));
  }
};

// philox_uniform of sampling.h.
__device__ inline double uniform_of(uint64_t seed, uint64_t position) {
  uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0,
                         0};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xD2511F53} * counter[0];
    const uint64_t second = uint64_t{0xCD9E8D57} * counter[2];
    const uint32_t one = counter[1];
    const uint32_t three = counter[3];
    counter[0] = static_cast<uint32_t>(second >> 32) ^ one ^ key[0];
    counter[1] = static_cast<uint32_t>(second);
    counter[2] = static_cast<uint32_t>(first >> 32) ^ three ^ key[1];
    counter[3] = static_cast<uint32_t>(first);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  const uint64_t bits = counter[0] | uint64_t{counter[1]} << 32;
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// The sum over this thread and those before it, and over the block. of_warp [warps] is shared
// memory; usable again when all threads are through.
template <typename T>
struct Scan {
  T through;  // this thread
  T total;
};
template <int threads, typename T>
__device__ Scan<T> block_scan(T x, T* of_warp) {
  constexpr int warps = threads / warp_lanes;
  const int lane = threadIdx.x % warp_lanes;
  const int warp = threadIdx.x / warp_lanes;
  for (int distance = 1; distance < warp_lanes; distance *= 2) {
    const T before = __shfl_up_sync(whole_warp, x, distance);
    if (lane >= distance) x += before;
  }
  __syncthreads();
  if (lane == warp_lanes - 1) of_warp[warp] = x;
  __syncthreads();
  T before = 0;
  T total = 0;
#pragma unroll
  for (int i = 0; i < warps; ++i) {
    if (i == warp) before = total;
    total += of_warp[i];
  }
  return {before + x, total};
}

}  // namespace qnext::ops::cuda
