// A counting sort of (row, slot) pairs by expert, stable and the same whatever the launch.
//
// The pairs are cut into chunks, a block each, and a chunk into 32 runs, a warp each. Every run
// counts its experts (count_runs), the counts are summed over the runs before it and over the
// experts before, and every run places its pairs. Within a
// warp's 32 pairs __match_any_sync() says who else has the same expert: a lane's place is the
// number of such lanes below it, so nothing is left to the order in which threads arrive.
// A single chunk (decode: few rows) does all in one launch; more take two.
#include <algorithm>
#include <limits>

#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/launch_cuda.cuh"
#include "ops/moe/expert_lists_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = 1024;
constexpr int runs = threads / warp_lanes;
// Two rounds of the whole block where there are many chunks; a lone chunk is worth up to eight,
// about what the launch that it saves takes.
constexpr int64_t chunk_pairs = 2 * threads;
constexpr int64_t lone_chunk_pairs = 8 * threads;
// The runs' counters live in shared memory, 4 bytes each.
constexpr int64_t most_experts = 1700;

struct Lists {
  int32_t* offsets;
  int32_t* pair;
  int32_t* used_count;
  int32_t* used;
  int32_t* chunk_counts;  // [chunks, experts]
};

struct Run {
  int64_t begin, end;
};

__device__ Run run_of(int64_t chunk, int64_t pairs_each, int64_t pairs) {
  const int64_t each = (pairs_each + threads - 1) / threads * warp_lanes;
  const int64_t begin = chunk * pairs_each + threadIdx.x / warp_lanes * each;
  return {min(begin, pairs), min(min(begin + each, (chunk + 1) * pairs_each), pairs)};
}

// Lanes of this warp whose pair has the same expert, and that expert; -1 beyond the run's end.
__device__ unsigned peers_of(const int32_t* ids, int64_t pair, int64_t end, int32_t& expert) {
  expert = pair < end ? ids[pair] : -1;
  return __match_any_sync(whole_warp, expert);
}

// counts[run][expert] of one chunk, in shared memory.
__device__ void count_runs(const int32_t* ids, Run run, int64_t experts, int32_t* counts) {
  const int lane = threadIdx.x % warp_lanes;
  int32_t* mine = counts + threadIdx.x / warp_lanes * experts;
  for (int64_t e = lane; e < experts; e += warp_lanes) mine[e] = 0;
  __syncwarp();
  for (int64_t first = run.begin; first < run.end; first += warp_lanes) {
    int32_t expert;
    const unsigned peers = peers_of(ids, first + lane, run.end, expert);
    if (expert >= 0 && lane == __ffs(peers) - 1) mine[expert] += __popc(peers);
    __syncwarp();
  }
  __syncthreads();
}

// counts[run][expert] becomes the place of the run's first pair of that expert, the first run's
// being `start`. Returns the expert's total.
__device__ int32_t sum_runs(int64_t expert, int64_t experts, int32_t start, int32_t* counts) {
  int32_t sum = start;
#pragma unroll 8
  for (int run = 0; run < runs; ++run) {
    int32_t& count = counts[run * experts + expert];
    const int32_t own = count;
    count = sum;
    sum += own;
  }
  return sum - start;
}

__device__ void shift_runs(int64_t expert, int64_t experts, int32_t offset, int32_t* counts) {
#pragma unroll 8
  for (int run = 0; run < runs; ++run) counts[run * experts + expert] += offset;
}

// The sum of the pair (total, total > 0) over the threads before this one; `sum` ends as that over
// the block.
struct Place {
  int32_t pairs, used;
};
__device__ Place scan_block(int32_t total, Place& sum) {
  __shared__ Place of_warp[runs];
  const int lane = threadIdx.x % warp_lanes, warp = threadIdx.x / warp_lanes;
  Place inclusive{total, total > 0};
#pragma unroll
  for (int distance = 1; distance < warp_lanes; distance *= 2) {
    const int32_t pairs = __shfl_up_sync(whole_warp, inclusive.pairs, distance);
    const int32_t used = __shfl_up_sync(whole_warp, inclusive.used, distance);
    if (lane >= distance) inclusive = {inclusive.pairs + pairs, inclusive.used + used};
  }
  if (lane == warp_lanes - 1) of_warp[warp] = inclusive;
  __syncthreads();
  Place before{inclusive.pairs - total, inclusive.used - (total > 0)};
  sum = {0, 0};
  for (int i = 0; i < runs; ++i) {
    if (i < warp) before = {before.pairs + of_warp[i].pairs, before.used + of_warp[i].used};
    sum = {sum.pairs + of_warp[i].pairs, sum.used + of_warp[i].used};
  }
  __syncthreads();  // of_warp may be written again
  return before;
}

// Offsets and the used experts from each expert's total; shift(expert, offset) gets its offset.
template <typename Total, typename Shift>
__device__ void place_experts(const Lists& lists, int64_t experts, bool write, Total total,
                              Shift shift) {
  Place carry{0, 0};
  for (int64_t first = 0; first < experts; first += threads) {
    const int64_t expert = first + threadIdx.x;
    const int32_t own = expert < experts ? total(expert) : 0;
    Place sum;
    const Place before = scan_block(own, sum);
    if (expert < experts) {
      const int32_t offset = carry.pairs + before.pairs;
      if (write) lists.offsets[expert] = offset;
      if (write && own > 0) lists.used[carry.used + before.used] = static_cast<int32_t>(expert);
      shift(expert, offset);
    }
    carry = {carry.pairs + sum.pairs, carry.used + sum.used};
  }
  if (write && threadIdx.x == 0) {
    lists.offsets[experts] = carry.pairs;
    *lists.used_count = carry.used;
  }
}

__device__ void place_runs(const int32_t* ids, Run run, int64_t experts, int32_t* places,
                           int32_t* pair) {
  __syncthreads();
  const int lane = threadIdx.x % warp_lanes;
  int32_t* mine = places + threadIdx.x / warp_lanes * experts;
  for (int64_t first = run.begin; first < run.end; first += warp_lanes) {
    int32_t expert;
    const unsigned peers = peers_of(ids, first + lane, run.end, expert);
    const int32_t below = __popc(peers & ((1u << lane) - 1));
    if (expert >= 0) pair[mine[expert] + below] = static_cast<int32_t>(first + lane);
    __syncwarp();
    if (expert >= 0 && below == 0) mine[expert] += __popc(peers);
    __syncwarp();
  }
}

extern __shared__ int32_t counters[];  // [runs, experts]

__global__ void __launch_bounds__(threads)
    list_in_one_launch(const int32_t* ids, int64_t pairs, int64_t experts, Lists lists) {
  wait_for_earlier_kernels();
  let_next_kernel_start();
  const Run run = run_of(0, pairs, pairs);
  count_runs(ids, run, experts, counters);
  place_experts(
      lists, experts, true, [&](int64_t expert) { return sum_runs(expert, experts, 0, counters); },
      [&](int64_t expert, int32_t offset) { shift_runs(expert, experts, offset, counters); });
  place_runs(ids, run, experts, counters, lists.pair);
}

__global__ void __launch_bounds__(threads)
    count_chunks(const int32_t* ids, int64_t pairs, int64_t experts, Lists lists) {
  wait_for_earlier_kernels();
  let_next_kernel_start();
  count_runs(ids, run_of(blockIdx.x, chunk_pairs, pairs), experts, counters);
  for (int64_t expert = threadIdx.x; expert < experts; expert += threads)
    lists.chunk_counts[blockIdx.x * experts + expert] = sum_runs(expert, experts, 0, counters);
}

// Every block sums the counts of all chunks for itself: 90 KB from L2 for 8,192 rows of 11, less
// than another launch. The first block writes what is not its own.
__global__ void __launch_bounds__(threads)
    place_chunks(const int32_t* ids, int64_t pairs, int64_t chunks, int64_t experts, Lists lists) {
  wait_for_earlier_kernels();
  let_next_kernel_start();
  const Run run = run_of(blockIdx.x, chunk_pairs, pairs);
  count_runs(ids, run, experts, counters);
  place_experts(
      lists, experts, blockIdx.x == 0,
      [&](int64_t expert) {
        int32_t total = 0, before = 0;
#pragma unroll 16
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
          const int32_t count = lists.chunk_counts[chunk * experts + expert];
          if (chunk < blockIdx.x) before += count;
          total += count;
        }
        sum_runs(expert, experts, before, counters);
        return total;
      },
      [&](int64_t expert, int32_t offset) { shift_runs(expert, experts, offset, counters); });
  place_runs(ids, run, experts, counters, lists.pair);
}

int64_t chunk_count(int64_t pairs) {
  return pairs <= lone_chunk_pairs ? 1 : (pairs + chunk_pairs - 1) / chunk_pairs;
}

// Hands out 256-byte aligned parts of a workspace, or, from null, measures it.
class Parts {
 public:
  explicit Parts(void* workspace) : base_(static_cast<std::byte*>(workspace)) {}
  int32_t* take(int64_t count) {
    auto* part = reinterpret_cast<int32_t*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(int32_t) + 255) / 256 * 256;
    return part;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

Lists lists_in(Parts& parts, int64_t experts, int64_t pairs) {
  Lists lists{};
  lists.offsets = parts.take(experts + 1);
  lists.used_count = parts.take(1);
  lists.used = parts.take(experts);
  lists.pair = parts.take(pairs);
  lists.chunk_counts = parts.take(chunk_count(pairs) * experts);
  return lists;
}

}  // namespace

size_t expert_lists_bytes(int64_t experts, int64_t pairs) {
  Parts parts(nullptr);
  lists_in(parts, experts, pairs);
  return parts.used();
}

ExpertLists list_experts(cudaStream_t stream, const int32_t* ids, int64_t rows, int64_t slots,
                         int64_t experts, void* workspace) {
  const int64_t pairs = rows * slots;
  if (experts > most_experts) fail_cuda("list_experts: more than 1700 experts");
  if (pairs > std::numeric_limits<int32_t>::max()) fail_cuda("list_experts: too many rows");
  Parts parts(workspace);
  const Lists lists = lists_in(parts, experts, pairs);
  const int64_t chunks = chunk_count(pairs);
  const auto grid = static_cast<unsigned>(chunks);
  const size_t shared = static_cast<size_t>(runs * experts) * sizeof(int32_t);
  if (chunks == 1) {
    launch_overlapped("list_experts", list_in_one_launch, 1, threads, shared, stream, ids, pairs,
                      experts, lists);
  } else {
    launch_overlapped("list_experts count", count_chunks, grid, threads, shared, stream, ids, pairs,
                      experts, lists);
    launch_overlapped("list_experts place", place_chunks, grid, threads, shared, stream, ids, pairs,
                      chunks, experts, lists);
  }
  return {experts, pairs, lists.offsets, lists.pair, lists.used_count, lists.used};
}

}  // namespace qnext::ops::cuda
