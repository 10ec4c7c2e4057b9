// Which experts a few rows have chosen, and who chose whom, worked out by each block for itself: a
// pair of warps routes a row and enters its choice into the lists. Every row is a column of every
// chosen expert's product (an mma has 8), whether it chose it or not, so that the rows' fragments
// are the same for all; what nobody chose is not stored.
#pragma once

#include "ops/moe/few_fragments.cuh"
#include "ops/moe/stream_experts_task.cuh"

namespace qnext::ops::cuda {

constexpr int most_few_rows = 4;               // at most
constexpr int few_experts = choosing_threads;  // routed ones, at most
constexpr int few_top_k = warp_lanes - 1;

// The choice in shared memory.
struct FewChoice {
  int32_t* ids;           // [rows][slots]
  float* weights;         // [rows][slots]
  uint32_t* mask;         // [chosen_words]: a bit for every chosen expert
  int16_t* expert;        // [pairs]: chosen experts, the shared one first, the others ascending
  int8_t* slot;           // [pairs][few_columns]: in which slot a row chose it, or -1
  int32_t* count;         // [1]: of chosen experts
  RouteScratch* scratch;  // [rows]: only while choosing, in memory that is free then
  ChoosingKeys* keys;     // [rows]

  __host__ __device__ FewChoice(Carver& carver, const ExpertsTask& task, void* free)
      : scratch(static_cast<RouteScratch*>(free)) {
    ids = carver.take<int32_t>(task.pairs());
    weights = carver.take<float>(task.pairs());
    mask = carver.take<uint32_t>(chosen_words);
    expert = carver.take<int16_t>(task.pairs());
    slot = carver.take<int8_t>(int64_t{few_columns} * task.pairs());
    count = carver.take<int32_t>(1);
    keys = carver.take<ChoosingKeys>(task.rows);
  }
};

// All threads, before a choice and with a barrier behind it.
__device__ inline void clear_choice(const ExpertsTask& task, const FewChoice& choice) {
  const auto thread = static_cast<int32_t>(threadIdx.x), threads = static_cast<int32_t>(blockDim.x);
  if (thread < chosen_words) choice.mask[thread] = 0;
#pragma unroll 1
  for (int32_t i = thread; i < task.pairs(); i += threads)
    reinterpret_cast<uint2*>(choice.slot)[i] = {~0u, ~0u};
  if (thread > 0 || !task.routing.shared) return;
  choice.expert[0] = static_cast<int16_t>(task.routing.experts);
#pragma unroll 1
  for (int row = 0; row < task.rows; ++row)
    choice.slot[row] = static_cast<int8_t>(task.routing.top_k);
}

// The first warp of each row: ids it has chosen, into the lists.
__device__ inline void enter_choice(const ExpertsTask& task, const FewChoice& choice, int row) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const RouteRule rule = rule_of(task.routing);
  const int32_t* const ids = choice.ids + row * task.slots;
  __syncwarp();
  // The last lane has none and counts them all.
  const bool routed = lane < rule.top_k;
  const int32_t id = routed ? ids[lane] : few_experts;
  if (routed) atomicOr(choice.mask + id / 32, 1u << id % 32);
  asm volatile("bar.sync %0, %1;" ::"n"(1 + most_few_rows), "r"(task.rows * warp_lanes) : "memory");
  const int32_t index = chosen_place(choice.mask, id, int32_t{rule.shared});
  if (routed) {
    choice.expert[index] = static_cast<int16_t>(id);
    choice.slot[index * few_columns + row] = static_cast<int8_t>(lane);
  }
  if (row == 0 && lane == warp_lanes - 1) *choice.count = index;
}

// Two warps of each row: its choice, seen by all behind the next barrier. `logits` from
// load_few_logits(). For the first one's lanes weights are exp(logit - largest), and it returns the
// largest logit.
using FewWarps = ChoosingWarps<2>;
using FewLogits = float[choosing_each<FewWarps>];
__device__ inline void load_few_logits(const ExpertsTask& task, const FewChoice& choice, int row,
                                       FewLogits& logits) {
  load_logits(FewWarps{choice.keys[row], row}, rule_of(task.routing),
              task.routing.logits + row * task.routing.logit_stride, logits);
}
__device__ inline float choose_few(const ExpertsTask& task, const FewChoice& choice, int row,
                                   const FewLogits& logits) {
  const FewWarps group{choice.keys[row], row};
  const float largest = choose_together(
      group, rule_of(task.routing), task.routing.logits + row * task.routing.logit_stride, logits,
      choice.scratch[row], choice.ids + row * task.slots, choice.weights + row * task.slots);
  if (group.thread() < warp_lanes) enter_choice(task, choice, row);
  return largest;
}

// The warp's row: weights of its slots, from what choose_few() left.
__device__ inline void finish_few(const ExpertsTask& task, const FewChoice& choice, int row,
                                  float largest) {
  const Routing& routing = task.routing;
  const float* gate = shared_gate_of(routing, row);
  const RouteRule rule = rule_of(routing);
  finish_row(rule, routing.logits + row * routing.logit_stride, shared_logit(rule, gate), largest,
             choice.ids + row * task.slots, choice.weights + row * task.slots);
}

// The same, and where later kernels look.
__device__ inline void publish_few(const ExpertsTask& task, const FewChoice& choice, int row,
                                   float largest) {
  const Routing& routing = task.routing;
  finish_few(task, choice, row, largest);
  __syncwarp();
#pragma unroll 1
  for (int32_t slot = static_cast<int32_t>(threadIdx.x) % warp_lanes; slot < task.slots;
       slot += warp_lanes) {
    const int32_t at = row * task.slots + slot;
    routing.ids[at] = choice.ids[at];
    routing.weights[at] = choice.weights[at];
    if (routing.chosen) routing.chosen[choice.ids[at]] = 1;
  }
}

}  // namespace qnext::ops::cuda
