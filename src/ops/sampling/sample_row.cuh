// One row of logits in the shared memory of a cluster, and the draw from all of it.
//
// Sums that decide. The CPU adds one term after the other; doing so here would take 16 cycles a
// term (20 us for the 2,374 sums of 64 tokens of a row). So all threads add at once, which differs
// by at most terms * 2^-53 of the total, and only where a target lies within `doubt` of it from a
// border does one thread add again as the CPU does. The token is the same either way.
//
// A rank (block of the cluster) holds `Slice::tokens` consecutive tokens, a whole number of the
// blocks of 64 that sampling_kernels.h sums; those behind the vocabulary are -infinity.
#pragma once

#include "ops/sampling/sample_device.cuh"
#include "ops/sampling/sampling_kernels.h"

namespace qnext::ops::cuda {

// Two blocks an SM: registers for 16 warps each.
constexpr int sample_threads = 512;
constexpr int sample_warps = sample_threads / warp_lanes;
constexpr int histogram_bins = 2048;
constexpr int bins_a_thread = histogram_bins / sample_threads;
constexpr int most_candidates = 1024;

struct Slice {
  float* logits;
  int32_t first;  // token
  int32_t tokens;
};

// Where running sums pass a target.
struct Crossing {
  int32_t index;  // `count` where they never do
  int32_t certain;
  double before;  // the sum up to index
  double target;
  double total;
};

// What candidates say: the token drawn or, where they are only those near the border, -1 and the
// least key that stays (Kept), 0 if that was not found.
struct Outcome {
  int32_t token;
  uint64_t least_key;
};

// Results that threads and ranks hand to each other.
struct RowShared {
  Best best_of_warp[sample_warps];
  Best best_of_rank[ranks];
  int32_t count_of_warp[sample_warps];
  float mass_of_warp[sample_warps];
  uint64_t amount_of_warp[sample_warps];
  double sum_of_warp[sample_warps];
  Crossing crossing;
  double share[logit_block];
  int32_t low;        // candidates are the tokens of the bins from low
  int32_t bound;      // to bound
  int32_t above_low;  // so many tokens lie in bins below low, that is, are more probable
  int32_t complete;   // no candidate is missing behind bound
  double mass_above_low[ranks];
  int32_t candidates;  // so many so far, in rank 0
  int32_t gathered;    // in this rank
  int32_t place;       // of those among the candidates
  int32_t found;
  int32_t digit;
  uint32_t last_tie;
  uint64_t above;  // amount of the tokens above that digit
  int32_t token;   // the answer of draw_from_all
  Outcome outcome;
};

// Which tokens the truncation leaves. Keys order tokens: larger is more probable.
struct Kept {
  uint64_t least_key = 0;
  double least_weight = 0;

  static __device__ uint64_t key(uint32_t order, uint32_t token) {
    return uint64_t{order} << 32 | static_cast<uint32_t>(~token);
  }
  __device__ double weight(Tempered tempered, float logit, uint32_t token) const {
    // Without branches, so that the exponentials of several tokens run side by side.
    const double weight = tempered.weight(logit);
    const bool stays = key(order_of(logit), token) >= least_key && weight >= least_weight;
    return stays ? weight : 0;
  }
};

// Sums of the kept weights of every block of 64, into rank 0's `sums`: block_sums_vector, eight
// threads taking the eight lanes of its vectors. Shows every weight to visit(logit, weight).
template <typename Visit>
__device__ void sum_blocks(Slice slice, Tempered tempered, Kept kept, double* sums, Visit visit) {
  constexpr int lanes = 8;
  constexpr int groups = sample_threads / lanes;
  double* to = cooperative_groups::this_cluster().map_shared_rank(sums, 0) +
               slice.first / static_cast<int32_t>(logit_block);
  const int blocks = slice.tokens / static_cast<int32_t>(logit_block);
  const int lane = threadIdx.x % lanes;
  for (int base = 0; base < blocks; base += groups) {
    const int block = base + static_cast<int>(threadIdx.x) / lanes;
    double total = 0;
    if (block < blocks) {
      for (int half = 0; half < 2; ++half) {
        double share[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int i = block * static_cast<int>(logit_block) + half * 32 + j * lanes + lane;
          const float logit = slice.logits[i];
          share[j] = kept.weight(tempered, logit, static_cast<uint32_t>(slice.first + i));
          visit(logit, share[j]);
        }
        total += (share[0] + share[2]) + (share[1] + share[3]);
      }
    }
#pragma unroll
    for (int distance = 4; distance > 0; distance /= 2)
      total += __shfl_xor_sync(whole_warp, total, distance);
    if (lane == 0 && block < blocks) to[block] = total;
  }
}

// Some terms of which a sum is wanted.
struct Terms {
  const double* values;
  int32_t count;
};

// This thread's run of the terms, and the sums before it, through it and of all.
struct Run {
  int32_t begin;
  int32_t end;
  double before;
  double total;

  __device__ Run(Terms terms, RowShared& shared) {
    const int32_t a_thread = (terms.count + sample_threads - 1) / sample_threads;
    begin = min(static_cast<int32_t>(threadIdx.x) * a_thread, terms.count);
    end = min(begin + a_thread, terms.count);
    double mine = 0;
    for (int32_t i = begin; i < end; ++i) mine += terms.values[i];
    const Scan<double> scan = block_scan<sample_threads>(mine, shared.sum_of_warp);
    before = scan.through - mine;
    total = scan.total;
  }
};

// What is looked for: where the running sums of `terms`, from `start` on, exceed (or reach) a share
// of the sum of `whole`.
struct Search {
  Terms terms;
  Terms whole;
  double share;
  bool reach;
  double start = 0;
};

// Rank 0, all threads: shared.crossing, certain unless a border is within `tolerance`.
__device__ inline void cross_quickly(Search search, double doubt, double tolerance,
                                     RowShared& shared) {
  const Run run(search.terms, shared);
  const double total =
      search.whole.values == search.terms.values ? run.total : Run(search.whole, shared).total;
  const double target = search.share * total;
  tolerance = fmax(tolerance, doubt * total);
  Crossing& crossing = shared.crossing;
  if (threadIdx.x == 0)
    crossing = {search.terms.count,
                static_cast<int32_t>(search.start + run.total + tolerance < target), run.total,
                target, total};
  __syncthreads();
  double sum = search.start + run.before;
  for (int32_t i = run.begin; i < run.end; ++i) {
    const double before = sum;
    sum += search.terms.values[i];
    if (before + tolerance < target && sum > target + tolerance) {
      crossing.index = i;
      crossing.before = before;
      crossing.certain = 1;
    }
  }
  __syncthreads();
}

// The same in the CPU's order, by one thread.
__device__ __noinline__ inline void cross_exactly(Search search, RowShared& shared) {
  if (threadIdx.x == 0) {
    double total = 0;
    for (int32_t i = 0; i < search.whole.count; ++i) total += search.whole.values[i];
    Crossing crossing{search.terms.count, 1, 0, search.share * total, total};
    double sum = search.start;
    for (int32_t i = 0; i < search.terms.count; ++i) {
      const double term = search.terms.values[i];
      if (term == 0) continue;
      if (!search.reach) crossing.index = i;  // a draw ends at the last token at the latest
      crossing.before = sum;
      sum += term;
      if (search.reach ? sum >= crossing.target : sum > crossing.target) {
        crossing.index = i;
        break;
      }
    }
    shared.crossing = crossing;
  }
  __syncthreads();
}

__device__ inline Crossing cross(Search search, double doubt, RowShared& shared) {
  cross_quickly(search, doubt, 0, shared);
  if (shared.crossing.certain == 0) {
    __syncthreads();
    cross_exactly(search, shared);
  }
  const Crossing crossing = shared.crossing;
  __syncthreads();
  return crossing;
}

// The sum of shared.share in the order of sum_blocks.
__device__ inline double sum_of_shares(const RowShared& shared) {
  double lane[8];
#pragma unroll
  for (int l = 0; l < 8; ++l) {
    const double* s = shared.share + l;
    lane[l] = ((s[0] + s[16]) + (s[8] + s[24])) + ((s[32] + s[48]) + (s[40] + s[56]));
  }
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// All ranks: the inverse of the cumulative distribution over the kept tokens, first the block, then
// the token within. The answer is rank 0's shared.token.
__device__ inline void draw_from_all(Slice slice, Tempered tempered, Kept kept, double uniform,
                                     double doubt, double* sums, RowShared& shared) {
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  constexpr auto block_size = static_cast<int>(logit_block);
  sum_blocks(slice, tempered, kept, sums, [](float, double) {});
  cluster.sync();
  if (cluster.block_rank() == 0) {
    const Terms blocks{sums, ranks * slice.tokens / block_size};
    for (const bool exact : {false, true}) {
      const Search search{blocks, blocks, uniform, false};
      if (exact)
        cross_exactly(search, shared);
      else
        cross_quickly(search, doubt, 0, shared);
      const Crossing of_block = shared.crossing;
      __syncthreads();
      if (of_block.certain == 0) continue;
      const int first = of_block.index * block_size;
      const float* logits = cluster.map_shared_rank(slice.logits, first / slice.tokens);
      if (threadIdx.x < block_size) {
        const int i = static_cast<int>(threadIdx.x);
        shared.share[i] = kept.weight(tempered, logits[first % slice.tokens + i],
                                      static_cast<uint32_t>(first + i));
      }
      __syncthreads();
      const Terms shares{shared.share, block_size};
      const Search within{shares, shares,
                          (of_block.target - of_block.before) / sum_of_shares(shared), false};
      if (exact)
        cross_exactly(within, shared);
      else
        cross_quickly(within, doubt, doubt * of_block.total, shared);
      const Crossing of_token = shared.crossing;
      __syncthreads();
      if (threadIdx.x == 0) shared.token = first + of_token.index;
      if (of_token.certain != 0) break;
    }
  }
  cluster.sync();  // nobody leaves while its logits are read
}

}  // namespace qnext::ops::cuda
