// Who computes what in the experts' kernels: the chosen experts of a batch, each with its (row,
// slot) pairs in groups of 8 (the columns of one mma), built by every block for itself in shared
// memory.
//
// Experts come in ascending order, the shared one first (nothing has to be known to fetch it). An
// expert of `groups` groups makes strips x groups units, span_strips of them for each group in
// turn. Every block lists the same pairs in the same groups; their order within one does not
// matter, since a pair is a column of its own.
#pragma once

#include <cstdint>

#include "ops/moe/expert_chunks.cuh"

namespace qnext::ops::cuda {

// Strips of an expert of several groups that are visited for one group before the next: each change
// of group costs a trip to L2 for the pairs' rows (with 4 strips, 5 % at 256 rows), and with many
// strips the weights have left L2 before the next group comes.
constexpr int32_t span_strips = 16;

// Division by a number known beforehand, exact for dividends below 2^32 / value.
struct Divisor {
  int32_t value = 1;
  uint32_t inverse = 0;

  Divisor() = default;
  explicit Divisor(int32_t value_)
      : value(value_),
        inverse(static_cast<uint32_t>(((uint64_t{1} << 32) + static_cast<uint32_t>(value_) - 1) /
                                      static_cast<uint32_t>(value_))) {}
  __device__ int32_t divide(int32_t dividend) const {
    return value == 1 ? dividend
                      : static_cast<int32_t>(__umulhi(static_cast<uint32_t>(dividend), inverse));
  }
};

struct ExpertPairs {
  int32_t experts;  // all, the shared one (last) included
  int32_t rows;
  int32_t slots;
  bool shared;
};

struct Unit {
  int32_t expert;
  int32_t strip;
  int32_t group;  // columns[8 group ..]
};

// In shared memory; the arrays' sizes as expert_groups_limit() says.
struct ExpertUnits {
  int32_t* next;     // [experts]: scratch
  short4* group_of;  // [groups]: expert, its first group, its groups
  int16_t* columns;  // [groups][8]: pair, or -1
  int32_t groups;

  __device__ Unit unit(int32_t index, Divisor strips_) const {
    const int32_t strips = strips_.value, around = strips_.divide(index);
    const short4 expert = group_of[around];
    const int32_t within = index - strips * expert.y;
    if (expert.z == 1) return {expert.x, within, expert.y};
    const int32_t span = within / (span_strips * expert.z);
    const int32_t in_span = within - span * span_strips * expert.z;
    const int32_t width = min(span_strips, strips - span * span_strips);
    const int32_t group = in_span / width;
    return {expert.x, span * span_strips + in_span - group * width, expert.y + group};
  }
};

// Sorts the pairs of experts that have more than one group: they were listed in any order. A warp
// an expert; no expert has more pairs than there are rows.
__device__ inline void sort_pairs(const ExpertUnits& units, int32_t from_group) {
  constexpr int most_rounds = 8;  // of 32 pairs
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
#pragma unroll 1
  for (int32_t base = from_group + warp * warp_lanes; base < units.groups; base += expert_threads) {
    const int32_t group = base + lane;
    const short4 expert = group < units.groups ? units.group_of[group] : short4{};
    unsigned to_sort = __ballot_sync(whole_warp, expert.z > 1 && expert.y == group);
    for (; to_sort; to_sort &= to_sort - 1) {
      const int32_t first = base + __ffs(static_cast<int>(to_sort)) - 1;
      const int32_t places = 8 * units.group_of[first].z;
      int16_t* list = units.columns + 8 * first;
      int32_t pair[most_rounds], rank[most_rounds];
#pragma unroll
      for (int k = 0; k < most_rounds; ++k) {
        const int32_t at = k * warp_lanes + lane;
        pair[k] = at < places ? list[at] : -1;
        rank[k] = 0;
      }
#pragma unroll 1
      for (int32_t i = 0; i < places; ++i) {
        const int32_t other = list[i];
#pragma unroll
        for (int k = 0; k < most_rounds; ++k) rank[k] += other >= 0 && other < pair[k];
      }
      __syncwarp();
#pragma unroll
      for (int k = 0; k < most_rounds; ++k)
        if (pair[k] >= 0) list[rank[k]] = static_cast<int16_t>(pair[k]);
    }
  }
  __syncthreads();
}

// A place in the sequence of units that mostly moves on within an expert.
class UnitCursor {
 public:
  __device__ UnitCursor(const ExpertUnits& units, Divisor strips)
      : units_(units), strips_(strips) {}
  __device__ const Unit& move_to(int32_t index) {
    const int32_t strip = unit_.strip + index - index_;
    if (simple_ && strip >= 0 && strip < strips_.value) {
      unit_.strip = strip;
    } else {
      unit_ = units_.unit(index, strips_);
      simple_ = units_.group_of[unit_.group].z == 1;
    }
    index_ = index;
    return unit_;
  }

 private:
  const ExpertUnits& units_;
  Divisor strips_;
  int32_t index_ = 0;
  bool simple_ = false;
  Unit unit_{};
};

// The share of a block: of the shared expert's units, which take longer where it has many groups,
// and of all others.
struct UnitShare {
  int32_t shared_first = 0, shared_count = 0, first = 0, count = 0;

  UnitShare() = default;
  __device__ UnitShare(const ExpertUnits& units, const ExpertPairs& pairs, int32_t strips) {
    const int64_t block = blockIdx.x, blocks = gridDim.x;
    const int64_t shared = pairs.shared ? int64_t{strips} * units.group_of[0].z : 0;
    const int64_t others = int64_t{strips} * units.groups - shared;
    shared_first = static_cast<int32_t>(shared * block / blocks);
    shared_count = static_cast<int32_t>(shared * (block + 1) / blocks) - shared_first;
    first = static_cast<int32_t>(shared + others * block / blocks);
    count = shared_count + static_cast<int32_t>(shared + others * (block + 1) / blocks) - first;
  }
  __device__ int32_t index(int32_t i) const {
    return i < shared_count ? shared_first + i : first + i - shared_count;
  }
};

// Groups that so many pairs may make.
inline int64_t expert_groups_limit(int64_t experts, int64_t rows, int64_t slots) {
  const int64_t pairs = rows * slots, used = pairs < experts ? pairs : experts;
  const int64_t full = used + pairs / 8;
  return full < pairs ? full : pairs;
}

// Exclusive sum over the block's threads, and the sum of all.
__device__ inline int32_t sum_before(int32_t mine, int32_t& all) {
  __shared__ int32_t of_warp[expert_warps];
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
  for (int i = 0; i < expert_warps; ++i) {
    if (i == warp) before = all;
    all += of_warp[i];
  }
  return before + sum - mine;
}

// ids [rows, slots], in global or shared memory. The whole block calls it; ids must be visible.
__device__ inline void list_units(ExpertUnits& units, const ExpertPairs& pairs,
                                  const int32_t* ids) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t first = pairs.shared ? 1 : 0;  // of the routed experts in the order of visits
  if (pairs.rows == 1) {
    // Every slot an expert of its own.
    if (thread < pairs.slots) {
      const int32_t slot = thread == 0 && pairs.shared ? pairs.slots - 1 : thread - first;
      units.group_of[thread] =
          make_short4(static_cast<short>(ids[slot]), static_cast<short>(thread), 1, 0);
      for (int n = 0; n < 8; ++n)
        units.columns[8 * thread + n] = static_cast<int16_t>(n == 0 ? slot : -1);
    }
    units.groups = pairs.slots;
    __syncthreads();
    return;
  }
  const int32_t count = pairs.rows * pairs.slots;
  const auto place = [&](int32_t id) {
    return pairs.shared && id == pairs.experts - 1 ? 0 : id + first;
  };
#pragma unroll 1
  for (int32_t i = thread; i < pairs.experts; i += expert_threads) units.next[i] = 0;
  __syncthreads();
#pragma unroll 1
  for (int32_t pair = thread; pair < count; pair += expert_threads)
    atomicAdd(&units.next[place(ids[pair])], 1);
  __syncthreads();
  // Each thread a run of experts.
  const int32_t run = (pairs.experts + expert_threads - 1) / expert_threads;
  const int32_t begin = thread * run;
  const int32_t end = min(begin + run, pairs.experts);
  const auto groups_of = [](int32_t of) { return (of + 7) / 8; };
  int32_t mine = 0;
#pragma unroll 1
  for (int32_t i = begin; i < end; ++i) mine += groups_of(units.next[i]);
  int32_t group = sum_before(mine, units.groups);
#pragma unroll 1
  for (int32_t i = begin; i < end; ++i) {
    const int32_t groups = groups_of(units.next[i]);
    const int32_t expert = !pairs.shared ? i : i == 0 ? pairs.experts - 1 : i - 1;
#pragma unroll 1
    for (int32_t n = 0; n < groups; ++n)
      units.group_of[group + n] = make_short4(static_cast<short>(expert), static_cast<short>(group),
                                              static_cast<short>(groups), 0);
    units.next[i] = 8 * group;
#pragma unroll 1
    for (int32_t n = 8 * group; n < 8 * (group + groups); ++n) units.columns[n] = -1;
    group += groups;
  }
  __syncthreads();
#pragma unroll 1
  for (int32_t pair = thread; pair < count; pair += expert_threads) {
    int32_t* next = &units.next[place(ids[pair])];
    // The shared expert has all rows.
    const bool at_row = pairs.shared && ids[pair] == pairs.experts - 1;
    const int32_t at = at_row ? *next + pair / pairs.slots : atomicAdd(next, 1);
    units.columns[at] = static_cast<int16_t>(pair);
  }
  __syncthreads();
  sort_pairs(units, pairs.shared ? units.group_of[0].z : 0);
}

}  // namespace qnext::ops::cuda
