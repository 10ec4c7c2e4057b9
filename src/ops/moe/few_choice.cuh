// Which experts a few rows have chosen, and who chose whom, worked out by each block for itself: a
// warp a row routes and enters its choice into the lists. Every row is a column of every chosen
// expert's product (an mma has 8), whether it chose it or not, so that the rows' fragments are the
// same for all; what nobody chose is not stored.
#pragma once

#include "ops/moe/few_fragments.cuh"
#include "ops/moe/stream_experts_task.cuh"

namespace qnext::ops::cuda {

constexpr int few_experts = 512;  // routed ones, at most
constexpr int few_top_k = warp_lanes - 1;
constexpr int few_words = few_experts / 32;

// The choice in shared memory.
struct FewChoice {
  int32_t* ids;           // [rows][slots]
  float* weights;         // [rows][slots]
  uint32_t* mask;         // [few_words]: a bit for every chosen expert
  int16_t* expert;        // [pairs]: chosen experts, the shared one first, the others ascending
  int8_t* slot;           // [pairs][few_most_rows]: in which slot a row chose it, or -1
  int32_t* count;         // [1]: of chosen experts
  RouteScratch* scratch;  // [rows]: only while choosing, in memory that is free then

  __host__ __device__ FewChoice(Carver& carver, const ExpertsTask& task, void* free)
      : scratch(static_cast<RouteScratch*>(free)) {
    ids = carver.take<int32_t>(task.pairs());
    weights = carver.take<float>(task.pairs());
    mask = carver.take<uint32_t>(few_words);
    expert = carver.take<int16_t>(task.pairs());
    slot = carver.take<int8_t>(int64_t{few_most_rows} * task.pairs());
    count = carver.take<int32_t>(1);
  }
};

__device__ inline RouteRule few_rule(const Routing& routing) {
  return {static_cast<int32_t>(routing.experts), static_cast<int32_t>(routing.top_k),
          routing.renormalize, routing.shared};
}

// All threads, before a choice and with a barrier behind it.
__device__ inline void clear_choice(const ExpertsTask& task, const FewChoice& choice) {
  const auto thread = static_cast<int32_t>(threadIdx.x), threads = static_cast<int32_t>(blockDim.x);
  if (thread < few_words) choice.mask[thread] = 0;
#pragma unroll 1
  for (int32_t i = thread; i < task.pairs(); i += threads)
    reinterpret_cast<uint2*>(choice.slot)[i] = {~0u, ~0u};
  if (thread > 0 || !task.routing.shared) return;
  choice.expert[0] = static_cast<int16_t>(task.routing.experts);
#pragma unroll 1
  for (int row = 0; row < task.rows; ++row)
    choice.slot[row] = static_cast<int8_t>(task.routing.top_k);
}

// The warp of each of `rows` rows: ids it has chosen, into the lists.
__device__ inline void enter_choice(const ExpertsTask& task, const FewChoice& choice, int row,
                                    int rows) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const RouteRule rule = few_rule(task.routing);
  const int32_t* const ids = choice.ids + row * task.slots;
  __syncwarp();
  // The last lane has none and counts them all.
  const bool routed = lane < rule.top_k;
  const int32_t id = routed ? ids[lane] : few_experts;
  if (routed) atomicOr(choice.mask + id / 32, 1u << id % 32);
  asm volatile("bar.sync 1, %0;" ::"r"(rows * warp_lanes) : "memory");
  int32_t index = int32_t{rule.shared};
#pragma unroll
  for (int word = 0; word < few_words; ++word) {
    const uint32_t below = word < id / 32 ? ~0u : word == id / 32 ? (1u << id % 32) - 1 : 0;
    index += __popc(choice.mask[word] & below);
  }
  if (routed) {
    choice.expert[index] = static_cast<int16_t>(id);
    choice.slot[index * few_most_rows + row] = static_cast<int8_t>(lane);
  }
  if (row == 0 && lane == warp_lanes - 1) *choice.count = index;
}

// The warp of each of `rows` rows: its choice, seen by all behind the next barrier. Weights are
// still exp(logit - largest); returns the largest logit.
__device__ inline float choose_few(const ExpertsTask& task, const FewChoice& choice, int row,
                                   int rows) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const RouteRule rule = few_rule(task.routing);
  const float* const from = task.routing.logits + row * task.routing.logit_stride;
  int32_t* const ids = choice.ids + row * task.slots;
  float* const weights = choice.weights + row * task.slots;
  float logits[logits_per_lane];
#pragma unroll
  for (int i = 0; i < logits_per_lane; ++i) {
    const int32_t e = lane + warp_lanes * i;
    logits[i] = e < rule.experts ? __ldcg(from + e) : 0.0f;
  }
  float largest = 0;
  if (rule.top_k > 0 &&
      !choose_at_once(logits, rule.experts, rule.top_k, choice.scratch[row], ids, weights, largest))
    choose_one_by_one(from, rule.experts, rule.top_k, ids, weights, largest);
  enter_choice(task, choice, row, rows);
  return largest;
}

// Two warps a row, for rows that wait: half the logits each. As choose_few() for the first warp of
// each row, the other one's result is nothing.
constexpr int pair_rows = 4;  // at most
constexpr int pair_logits = logits_per_lane / 2;
struct alignas(16) PairScratch {
  uint32_t group_key[warp_lanes];
  int32_t count;
};
__device__ inline void load_pair_logits(const ExpertsTask& task, int row,
                                        float (&logits)[pair_logits]) {
  const auto at = static_cast<int32_t>(threadIdx.x) % (2 * warp_lanes);
  const float* const from = task.routing.logits + row * task.routing.logit_stride;
#pragma unroll
  for (int i = 0; i < pair_logits; ++i) {
    const int32_t e = at + 2 * warp_lanes * i;
    logits[i] = e < task.routing.experts ? __ldcg(from + e) : 0.0f;
  }
}
__device__ inline float choose_few_by_two(const ExpertsTask& task, const FewChoice& choice,
                                          PairScratch* of_rows, int row, int rows,
                                          const float (&logits)[pair_logits]) {
  constexpr uint32_t low_bits = warp_lanes - 1;  // make the groups' keys distinct
  const auto at = static_cast<int32_t>(threadIdx.x) % (2 * warp_lanes);
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const RouteRule rule = few_rule(task.routing);
  RouteScratch& scratch = choice.scratch[row];
  PairScratch& pair = of_rows[row];
  const auto meet = [&] {
    asm volatile("bar.sync %0, %1;" ::"r"(2 + row), "n"(2 * warp_lanes) : "memory");
  };
  uint32_t keys[pair_logits], best = 0;
#pragma unroll
  for (int i = 0; i < pair_logits; ++i) {
    keys[i] = at + 2 * warp_lanes * i < rule.experts ? order_key(logits[i]) : 0;
    best = max(best, keys[i]);
  }
  // The largest of each two threads' logits: 32 of them, of which the k-th is the bound.
  const uint32_t group = max(best, __shfl_xor_sync(whole_warp, best, 1));
  if (at % 2 == 0) pair.group_key[at / 2] = (group & ~low_bits) | static_cast<uint32_t>(at / 2);
  if (at == 0) pair.count = 0;
  if (at < candidate_limit) scratch.key[at] = 0;
  meet();
  const uint32_t mine = pair.group_key[lane];
  int rank = 0;
#pragma unroll
  for (int i = 0; i < warp_lanes; i += 4) {
    const uint4 four = *reinterpret_cast<const uint4*>(&pair.group_key[i]);
    rank += (four.x > mine) + (four.y > mine) + (four.z > mine) + (four.w > mine);
  }
  const unsigned found = __ballot_sync(whole_warp, rank == rule.top_k - 1);
  const uint32_t bound =
      __shfl_sync(whole_warp, mine, __ffs(static_cast<int>(found)) - 1) & ~low_bits;
  if (best >= bound) {
#pragma unroll
    for (int i = 0; i < pair_logits; ++i) {
      if (keys[i] == 0 || keys[i] < bound) continue;
      const int32_t place = atomicAdd(&pair.count, 1);
      if (place >= candidate_limit) continue;
      scratch.key[place] = keys[i];
      scratch.logit[place] = logits[i];
      scratch.id[place] = at + 2 * warp_lanes * i;
    }
  }
  meet();
  if (at >= warp_lanes) return 0;
  float largest = 0;
  int32_t* const ids = choice.ids + row * task.slots;
  float* const weights = choice.weights + row * task.slots;
  const int32_t count = pair.count;
  if (rule.top_k > 0 && count > candidate_limit) {
    choose_one_by_one(task.routing.logits + row * task.routing.logit_stride, rule.experts,
                      rule.top_k, ids, weights, largest);
  } else if (rule.top_k > 0) {
    const bool is_candidate = lane < count;
    const uint32_t key = scratch.key[lane];
    const int32_t id = is_candidate ? scratch.id[lane] : INT32_MAX;
    const float logit = is_candidate ? scratch.logit[lane] : 0.0f;
    int place = 0, equal = 0;
#pragma unroll
    for (int i = 0; i < candidate_limit; i += 4) {
      const uint4 four = *reinterpret_cast<const uint4*>(&scratch.key[i]);
      place += (four.x > key) + (four.y > key) + (four.z > key) + (four.w > key);
      equal += (four.x == key) + (four.y == key) + (four.z == key) + (four.w == key);
    }
    // Candidates lie in no order: among equals the ids decide.
    if (__any_sync(whole_warp, is_candidate && equal > 1)) {
#pragma unroll 1
      for (int i = 0; i < count; ++i) place += scratch.key[i] == key && scratch.id[i] < id;
    }
    const unsigned first = __ballot_sync(whole_warp, is_candidate && place == 0);
    largest = __shfl_sync(whole_warp, logit, __ffs(static_cast<int>(first)) - 1);
    if (is_candidate && place < rule.top_k) {
      ids[place] = id;
      weights[place] = expf(logit - largest);
    }
  }
  enter_choice(task, choice, row, rows);
  return largest;
}

// The warp's row: weights of its slots, from what choose_few() left.
__device__ inline void finish_few(const ExpertsTask& task, const FewChoice& choice, int row,
                                  float largest) {
  const Routing& routing = task.routing;
  const float* gate =
      routing.shared_gate ? routing.shared_gate + row * routing.gate_stride : nullptr;
  const RouteRule rule = few_rule(routing);
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
