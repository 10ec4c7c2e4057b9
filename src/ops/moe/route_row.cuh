// Routing of one row by one warp: which experts, with what weights (moe.h).
//
// The ladder. Plain (moe_cuda.cu): the largest logit that comes after the last one, k times: k
// passes and k reductions of a warp, 2 us and more for the top 10 of 512. Here: each lane holds 16
// logits; the k-th largest of the lanes' own maxima is a bound that the top k cannot lie below, and
// hardly more than k logits reach it; those are ranked by counting. No step depends on k, and the
// whole takes some 600 cycles. Rows that do not fit (more than 512 experts, k above 32, more than
// 32 logits at the bound) take the plain way; both give the same bits.
#pragma once

#include <cstdint>

#include "ops/activation/activation_device.h"
#include "ops/moe/route_cuda.h"

namespace qnext::ops::cuda {

constexpr int logits_per_lane = 16;
constexpr int candidate_limit = warp_lanes;

// A warp's shared memory.
struct alignas(16) RouteScratch {
  uint64_t order[candidate_limit];  // choose_together() only, see route_order()
  uint32_t key[candidate_limit];
  float logit[candidate_limit];
  int32_t id[candidate_limit];
};

// Larger keys for larger logits, the same for equal ones; NaN counts as the smallest. Never 0.
__device__ inline uint32_t order_key(float logit) {
  // Adding zero makes -0 a +0.
  const auto bits = static_cast<uint32_t>(__float_as_int(isnan(logit) ? -INFINITY : logit + 0.0f));
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}

// Larger for what is chosen first: of equal logits the lower id. Never 0.
__device__ inline uint64_t route_order(uint32_t key, int32_t id) {
  return uint64_t{key} << 32 | ~static_cast<uint32_t>(id);
}

// How many of the 32 keys come before this lane's: larger ones, and equal ones of lower index.
__device__ inline int rank_among(const uint32_t (&keys)[candidate_limit], uint32_t mine, int lane) {
  int rank = 0;
#pragma unroll
  for (int i = 0; i < candidate_limit; i += 4) {
    const uint4 four = *reinterpret_cast<const uint4*>(&keys[i]);
    const uint32_t key[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) rank += key[j] > mine || (key[j] == mine && i + j < lane);
  }
  return rank;
}

// Writes the ids and exp(logit - largest) of the top k; returns the largest logit. `mine` holds
// logits lane + 32 i. False: the row does not fit, nothing was written.
__device__ inline bool choose_at_once(const float (&mine)[logits_per_lane], int32_t experts,
                                      int32_t top_k, RouteScratch& scratch, int32_t* ids,
                                      float* weights, float& largest) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  if (experts > logits_per_lane * warp_lanes || top_k > warp_lanes) return false;
  uint32_t best = 0;
#pragma unroll
  for (int i = 0; i < logits_per_lane; ++i)
    if (lane + warp_lanes * i < experts) best = max(best, order_key(mine[i]));
  scratch.key[lane] = best;
  __syncwarp();
  const bool is_bound = rank_among(scratch.key, best, lane) == top_k - 1;
  const uint32_t bound = __shfl_sync(
      whole_warp, best, __ffs(static_cast<int>(__ballot_sync(whole_warp, is_bound))) - 1);
  scratch.key[lane] = 0;
  __syncwarp();
  int count = 0;
#pragma unroll
  for (int i = 0; i < logits_per_lane; ++i) {
    const int32_t id = lane + warp_lanes * i;
    const uint32_t key = id < experts ? order_key(mine[i]) : 0;
    const bool reaches = key >= bound && key != 0;
    const unsigned mask = __ballot_sync(whole_warp, reaches);
    const int at = count + __popc(mask & ((1u << lane) - 1));
    if (reaches && at < candidate_limit) {
      scratch.key[at] = key;
      scratch.logit[at] = mine[i];
      scratch.id[at] = id;
    }
    count += __popc(mask);
  }
  if (count > candidate_limit) return false;
  __syncwarp();
  // Candidates lie in ascending ids, so the lower index wins among equals.
  const float logit = scratch.logit[lane];
  const int rank = rank_among(scratch.key, scratch.key[lane], lane);
  const bool taken = lane < count && rank < top_k;
  const unsigned first = __ballot_sync(whole_warp, taken && rank == 0);
  largest = __shfl_sync(whole_warp, logit, __ffs(static_cast<int>(first)) - 1);
  if (taken) {
    ids[rank] = scratch.id[lane];
    weights[rank] = expf(logit - largest);
  }
  return true;
}

// As choose_at_once(), for any row: one pass over the logits for each slot, past the first-level
// cache. Not inlined: it is hardly ever used, and instructions, too, have to be fetched.
__device__ __noinline__ inline void choose_one_by_one(const float* logits, int32_t experts,
                                                      int32_t top_k, int32_t* ids, float* weights,
                                                      float& largest) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  uint32_t last_key = 0xFFFFFFFFu;
  int32_t last_id = -1;
  for (int32_t slot = 0; slot < top_k; ++slot) {
    uint32_t best = 0;
    int32_t best_id = INT32_MAX;
#pragma unroll 1
    for (int32_t e = lane; e < experts; e += warp_lanes) {
      const uint32_t key = order_key(__ldcg(logits + e));
      const bool is_next = key < last_key || (key == last_key && e > last_id);
      if (is_next && key > best) {
        best = key;
        best_id = e;
      }
    }
    last_key = __reduce_max_sync(whole_warp, best);
    // Within bounds even where no expert is left.
    last_id =
        min(__reduce_min_sync(whole_warp, best == last_key ? best_id : INT32_MAX), experts - 1);
    const float logit = __ldcg(logits + last_id);
    if (slot == 0) largest = logit;
    if (lane == 0) {
      ids[slot] = last_id;
      weights[slot] = expf(logit - largest);
    }
  }
}

// What routing needs beside the logits; shapes as in route_cuda.h.
struct RouteRule {
  int32_t experts;
  int32_t top_k;
  bool renormalize;
  bool shared;
};
__device__ inline RouteRule rule_of(const Routing& routing) {
  return {static_cast<int32_t>(routing.experts), static_cast<int32_t>(routing.top_k),
          routing.renormalize, routing.shared};
}

// A warp: weights of the chosen from exp(logit - largest), and the shared expert's slot. `logits`
// are needed where the chosen are not renormalised.
__device__ inline void finish_row(const RouteRule& rule, const float* logits, float gate,
                                  float largest, int32_t* ids, float* weights) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  if (rule.top_k > 0) {
    __syncwarp();
    // The sum over all experts cancels where the chosen are renormalised.
    float sum = 0;
    if (rule.renormalize) {
#pragma unroll 8
      for (int32_t slot = 0; slot < rule.top_k; ++slot) sum += weights[slot];
    } else {
#pragma unroll 1
      for (int32_t e = lane; e < rule.experts; e += warp_lanes)
        sum += expf(__ldcg(logits + e) - largest);
      sum = warp_sum(sum);
    }
    __syncwarp();
#pragma unroll 1
    for (int32_t slot = lane; slot < rule.top_k; slot += warp_lanes) weights[slot] /= sum;
  }
  if (lane == 0 && rule.shared) {
    ids[rule.top_k] = rule.experts;
    weights[rule.top_k] = sigmoid(gate);
  }
}

// Of a row; null: there is none.
__device__ inline const float* shared_gate_of(const Routing& routing, int64_t row) {
  return routing.shared_gate ? routing.shared_gate + row * routing.gate_stride : nullptr;
}
__device__ inline float shared_logit(const RouteRule& rule, const float* shared_gate) {
  return rule.shared && shared_gate ? __ldcg(shared_gate) : INFINITY;
}

// Writes ids and weights [top_k + shared], in shared or global memory; lanes see them after
// __syncwarp().
__device__ inline void route_row(const RouteRule& rule, const float* logits,
                                 const float* shared_gate, RouteScratch& scratch, int32_t* ids,
                                 float* weights) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  float mine[logits_per_lane];
#pragma unroll
  for (int i = 0; i < logits_per_lane; ++i) {
    const int32_t e = lane + warp_lanes * i;
    mine[i] = e < rule.experts ? __ldcg(logits + e) : 0.0f;
  }
  const float gate = shared_logit(rule, shared_gate);
  float largest = 0;
  if (rule.top_k > 0 &&
      !choose_at_once(mine, rule.experts, rule.top_k, scratch, ids, weights, largest))
    choose_one_by_one(logits, rule.experts, rule.top_k, ids, weights, largest);
  finish_row(rule, logits, gate, largest, ids, weights);
}

// What those have in shared memory who choose for a row together.
struct alignas(16) ChoosingKeys {
  uint32_t of_group[warp_lanes];
  int32_t count;
};

// All threads of a block, a logit each, so that nobody waits for one warp's instructions.
constexpr int choosing_threads = logits_per_lane * warp_lanes;
struct ChoosingBlock {
  static constexpr int threads = choosing_threads;
  ChoosingKeys& keys;

  __device__ int32_t thread() const { return static_cast<int32_t>(threadIdx.x); }
  __device__ void meet() const { __syncthreads(); }
};
// `count` warps of a block for each row, which meet at barrier 1 + row.
template <int count>
struct ChoosingWarps {
  static constexpr int threads = count * warp_lanes;
  ChoosingKeys& keys;
  int row;

  __device__ int32_t thread() const { return static_cast<int32_t>(threadIdx.x) % threads; }
  __device__ void meet() const {
    asm volatile("barrier.sync %0, %1;" ::"r"(1 + row), "n"(threads) : "memory");
  }
};

// A group's threads' share of a row's logits.
template <typename Group>
constexpr int choosing_each = choosing_threads / Group::threads;
template <typename Group>
__device__ inline void load_logits(const Group& group, const RouteRule& rule, const float* from,
                                   float (&logit)[choosing_each<Group>]) {
#pragma unroll
  for (int i = 0; i < choosing_each<Group>; ++i) {
    const int32_t expert = group.thread() + i * Group::threads;
    logit[i] = expert < rule.experts ? __ldcg(from + expert) : 0.0f;
  }
}

// A group of threads chooses for one row, `logit` from load_logits(). The first warp's lanes, for
// which it returns the largest logit, see ids and exp(logit - largest) of the top k after
// __syncwarp().
template <typename Group>
__device__ inline float choose_together(const Group& group, const RouteRule& rule,
                                        const float* logits,
                                        const float (&logit)[choosing_each<Group>],
                                        RouteScratch& scratch, int32_t* ids, float* weights) {
  constexpr int each = choosing_each<Group>;
  constexpr int neighbours = Group::threads / warp_lanes;
  constexpr uint32_t low_bits = warp_lanes - 1;  // make the groups' keys distinct
  uint32_t(&group_key)[warp_lanes] = group.keys.of_group;
  int32_t& count = group.keys.count;
  const int32_t thread = group.thread();
  const int lane = thread % warp_lanes;
  if (rule.top_k > 0 && rule.experts <= choosing_threads && rule.top_k <= warp_lanes) {
    uint32_t key[each], best = 0;
#pragma unroll
    for (int i = 0; i < each; ++i) {
      key[i] = thread + i * Group::threads < rule.experts ? order_key(logit[i]) : 0;
      best = max(best, key[i]);
    }
    // The largest of each group of threads: 32 of them, of which the k-th is the bound.
#pragma unroll
    for (int distance = neighbours / 2; distance > 0; distance /= 2)
      best = max(best, __shfl_xor_sync(whole_warp, best, distance));
    if (thread % neighbours == 0)
      group_key[thread / neighbours] = (best & ~low_bits) | (thread / neighbours);
    if (thread == 0) count = 0;
    if (thread < candidate_limit) scratch.order[thread] = 0;
    group.meet();
    const uint32_t mine = group_key[lane];
    int rank = 0;
#pragma unroll 2
    for (int i = 0; i < warp_lanes; i += 4) {
      const uint4 four = *reinterpret_cast<const uint4*>(&group_key[i]);
      rank += (four.x > mine) + (four.y > mine) + (four.z > mine) + (four.w > mine);
    }
    const unsigned at = __ballot_sync(whole_warp, rank == rule.top_k - 1);
    // At least 1: keys of threads without a logit are 0.
    const uint32_t bound =
        max(__shfl_sync(whole_warp, mine, __ffs(static_cast<int>(at)) - 1) & ~low_bits, 1u);
    int32_t reaching = 0;
#pragma unroll
    for (int i = 0; i < each; ++i) reaching += key[i] >= bound;
    if (reaching > 0) {
      int32_t place = atomicAdd(&count, reaching);
#pragma unroll
      for (int i = 0; i < each; ++i) {
        if (key[i] < bound || place >= candidate_limit) continue;
        scratch.order[place] = route_order(key[i], thread + i * Group::threads);
        scratch.logit[place++] = logit[i];
      }
    }
    group.meet();
  } else {
    if (thread == 0) count = candidate_limit + 1;
    group.meet();
  }
  float largest = 0;
  if (thread >= warp_lanes) return largest;
  const int32_t candidates = count;
  if (candidates > candidate_limit) {
    if (rule.top_k > 0) choose_one_by_one(logits, rule.experts, rule.top_k, ids, weights, largest);
  } else {
    const bool is_candidate = lane < candidates;
    const uint64_t mine = scratch.order[lane];
    const float logit = scratch.logit[lane];
    int rank = 0;
    // Behind the last one there are zeros.
#pragma unroll 1
    for (int i = 0; i < candidates; i += 4)
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        const auto two = *reinterpret_cast<const ulonglong2*>(&scratch.order[i + j]);
        rank += (two.x > mine) + (two.y > mine);
      }
    const unsigned first = __ballot_sync(whole_warp, is_candidate && rank == 0);
    largest = __shfl_sync(whole_warp, logit, __ffs(static_cast<int>(first)) - 1);
    if (is_candidate && rank < rule.top_k) {
      ids[rank] = static_cast<int32_t>(~static_cast<uint32_t>(mine));
      weights[rank] = expf(logit - largest);
    }
  }
  return largest;
}

template <typename Group>
__device__ inline float choose_together(const Group& group, const RouteRule& rule,
                                        const float* logits, RouteScratch& scratch, int32_t* ids,
                                        float* weights) {
  float logit[choosing_each<Group>];
  load_logits(group, rule, logits, logit);
  return choose_together(group, rule, logits, logit, scratch, ids, weights);
}

// The experts that several rows chose, a bit each.
constexpr int chosen_words = choosing_threads / 32;

// A whole warp: the place of each lane's `id` (at most choosing_threads) among them where the first
// one's is `count`.
__device__ inline int32_t chosen_place(const uint32_t* chosen, int32_t id, int32_t count) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const uint32_t word = lane < chosen_words ? chosen[lane] : 0;
  int32_t sum = __popc(word);
#pragma unroll 1
  for (int distance = 1; distance < warp_lanes; distance *= 2) {
    const int32_t before = __shfl_up_sync(whole_warp, sum, distance);
    if (lane >= distance) sum += before;
  }
  const uint32_t up_to_id = __shfl_sync(whole_warp, word, id / 32) & ~(~0u << id % 32);
  return count + __shfl_sync(whole_warp, sum - __popc(word), id / 32) + __popc(up_to_id);
}

}  // namespace qnext::ops::cuda
