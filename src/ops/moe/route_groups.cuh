// Routing of up to 8 rows and the groups of their pairs (expert_groups.cuh) by one block, for the
// kernels of many rows. A row has an expert once, so an expert has one group: groups come in
// ascending experts, a group's pairs in ascending rows.
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/moe/stream_experts_task.cuh"

namespace qnext::ops::cuda {

constexpr int most_rows_routed_at_once = 8;
constexpr int routing_warps = 4;  // of a row
using RoutingWarps = ChoosingWarps<routing_warps>;

inline bool routes_at_once(const ExpertsTask& task) {
  return task.rows <= most_rows_routed_at_once && task.routing.top_k > 0 &&
         task.routing.top_k < warp_lanes && task.routing.experts <= choosing_threads;
}

// What the rows chose, in shared memory.
struct ChosenExperts {
  uint32_t rows_of[choosing_threads];         // a bit for every row that chose it
  __align__(16) uint32_t used[chosen_words];  // a bit for every chosen expert

  __device__ void clear() {
    const auto thread = static_cast<int32_t>(threadIdx.x);
#pragma unroll 1
    for (int32_t i = thread; i < choosing_threads; i += static_cast<int32_t>(blockDim.x))
      rows_of[i] = 0;
    if (thread < chosen_words) used[thread] = 0;
  }
  __device__ void enter(int row, int32_t id) {
    atomicOr(&used[id / 32], 1u << id % 32);
    atomicOr(&rows_of[id], 1u << row);
  }
};

// A row's first warp, behind a barrier of all of them.
__device__ inline void list_choice(const ExpertsTask& task, const ChosenExperts& chosen, int row,
                                   const int32_t* ids, int32_t top_k) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const bool routed = lane < top_k;
  // The last lane has no expert and counts them all.
  const int32_t id = routed ? ids[lane] : choosing_threads;
  const int32_t group = chosen_place(chosen.used, id, 0);
  if (row == 0 && lane == warp_lanes - 1) *task.groups.count = task.shared_groups() + group;
  if (!routed) return;
  const uint32_t rows = chosen.rows_of[id];
  const int place = __popc(rows & ((1u << row) - 1));
  int16_t* const columns = task.groups.columns + 8 * group;
  columns[place] = static_cast<int16_t>(row * task.slots + lane);
  if (place > 0) return;
  task.groups.expert[group] = make_short2(static_cast<short>(id), 0);
#pragma unroll 1
  for (int i = __popc(rows); i < 8; ++i) columns[i] = -1;
}

__global__ void __launch_bounds__(most_rows_routed_at_once* RoutingWarps::threads)
    route_groups(const __grid_constant__ ExpertsTask task) {
  constexpr int most = most_rows_routed_at_once;
  __shared__ RouteScratch scratch[most];
  __shared__ ChoosingKeys keys[most];
  __shared__ int32_t chosen_ids[most][warp_lanes];
  __shared__ float chosen_weights[most][warp_lanes];
  __shared__ ChosenExperts chosen;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int lane = thread % warp_lanes, row = thread / RoutingWarps::threads;
  const Routing& routing = task.routing;
  const RouteRule rule = rule_of(routing);
  const float* const logits = routing.logits + row * routing.logit_stride;
  int32_t* const ids = chosen_ids[row];
  float* const weights = chosen_weights[row];
  const bool ends = thread % RoutingWarps::threads < warp_lanes;
  chosen.clear();
  __syncthreads();
  wait_for_earlier_kernels();
  let_next_kernel_start();
  const float gate = ends ? shared_logit(rule, shared_gate_of(routing, row)) : 0.0f;
  const float largest =
      choose_together(RoutingWarps{keys[row], row}, rule, logits, scratch[row], ids, weights);
  if (!ends) return;
  __syncwarp();
  if (lane < rule.top_k) chosen.enter(row, ids[lane]);
  asm volatile("barrier.sync %0, %1;" ::"n"(1 + most), "r"(task.rows * warp_lanes) : "memory");
  list_choice(task, chosen, row, ids, rule.top_k);
  finish_row(rule, logits, gate, largest, ids, weights);
  __syncwarp();
  if (lane >= task.slots) return;
  const int32_t at = row * task.slots + lane;
  routing.ids[at] = ids[lane];
  routing.weights[at] = weights[lane];
  if (routing.chosen) routing.chosen[ids[lane]] = 1;
}

}  // namespace qnext::ops::cuda
