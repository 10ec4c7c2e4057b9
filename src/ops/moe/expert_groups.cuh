// One block lists the (row, slot) pairs of a batch by expert, in groups of 8, for the kernels that
// follow (but the shared expert's, which are known). The order of pairs within an expert is that of
// arrival: it decides beside which others a pair is multiplied, and a pair is a column of its own,
// whose bits do not tell.
//
// Each block of those kernels for itself took 7 us at 64 rows and more than 20 at 256.
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/moe/stream_experts_task.cuh"

namespace qnext::ops::cuda {

constexpr int listing_threads = 1024;
constexpr int listing_warps = listing_threads / warp_lanes;

inline size_t listing_memory(int32_t experts, int32_t pairs) {
  return static_cast<size_t>(experts) * sizeof(int32_t) +
         static_cast<size_t>(pairs) * sizeof(int16_t);
}

// Exclusive sum over the block's threads, and the sum of all.
__device__ inline int32_t sum_before(int32_t mine, int32_t& all) {
  __shared__ int32_t of_warp[listing_warps];
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  int32_t sum = mine;
#pragma unroll
  for (int distance = 1; distance < warp_lanes; distance *= 2) {
    const int32_t other = __shfl_up_sync(whole_warp, sum, distance);
    if (lane >= distance) sum += other;
  }
  if (lane == warp_lanes - 1) of_warp[warp] = sum;
  __syncthreads();
  int32_t before = 0;
  all = 0;
#pragma unroll
  for (int i = 0; i < listing_warps; ++i) {
    if (i == warp) before = all;
    all += of_warp[i];
  }
  return before + sum - mine;
}

__global__ void __launch_bounds__(listing_threads)
    list_groups(const __grid_constant__ ExpertsTask task) {
  extern __shared__ __align__(128) std::byte bytes[];
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t routed = task.routing.shared ? task.experts - 1 : task.experts;
  const int32_t top_k = task.routing.shared ? task.slots - 1 : task.slots;
  const int32_t count = task.rows * top_k;
  auto* const next = reinterpret_cast<int32_t*>(bytes);  // [routed]: pairs, then the next's place
  auto* const ids = reinterpret_cast<int16_t*>(next + routed);  // [count]
  const ExpertGroups& groups = task.groups;
  for (int32_t i = thread; i < routed; i += listing_threads) next[i] = 0;
  wait_for_earlier_kernels();
  let_next_kernel_start();
  __syncthreads();
  for (int32_t i = thread; i < count; i += listing_threads) {
    const int32_t id = task.routing.ids[i / top_k * task.slots + i % top_k];
    ids[i] = static_cast<int16_t>(id);
    atomicAdd(&next[id], 1);
  }
  __syncthreads();
  // Each thread a run of experts.
  const int32_t run = (routed + listing_threads - 1) / listing_threads;
  const int32_t begin = min(thread * run, routed), end = min(begin + run, routed);
  int32_t mine = 0, all = 0;
  for (int32_t i = begin; i < end; ++i) mine += groups_of(next[i]);
  int32_t group = sum_before(mine, all);
  for (int32_t i = begin; i < end; ++i) {
    const int32_t of_expert = groups_of(next[i]);
    next[i] = 8 * group;
    for (int32_t n = 0; n < of_expert; ++n, ++group)
      groups.expert[group] =
          make_short2(static_cast<short>(i), static_cast<short>(of_expert > 1 ? 1 : 0));
  }
  if (thread == 0) *groups.count = task.shared_groups() + all;
  for (int32_t i = thread; i < all; i += listing_threads)
    reinterpret_cast<uint4*>(groups.columns)[i] = {~0u, ~0u, ~0u, ~0u};
  __syncthreads();
  for (int32_t i = thread; i < count; i += listing_threads)
    groups.columns[atomicAdd(&next[ids[i]], 1)] =
        static_cast<int16_t>(i / top_k * task.slots + i % top_k);
}

}  // namespace qnext::ops::cuda
