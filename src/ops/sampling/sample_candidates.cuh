// Truncation by candidates: a histogram of the distances to the most probable token says which they
// are, and rank 0 collects and sorts them. Where few tokens are left, all of those are candidates,
// cut and drawn from in the order of sampling.cpp; else only those near the border, and what is
// found among them is the least probable token that stays.
#pragma once

#include "ops/sampling/sample_row.cuh"

namespace qnext::ops::cuda {

// Bins of a distance (maximum - logit) / temperature >= 0: 64 an octave, from 2^-15 to 2^17. Larger
// distances never get a smaller bin, so tokens up to a bin are the most probable ones.
constexpr int bin_shift = 17;  // six bits of the fraction are left
constexpr int first_bin = (127 - 15) << (23 - bin_shift);

__device__ inline int bin_of(float distance) {
  const int bin = (__float_as_int(distance) >> bin_shift) - first_bin;
  return min(max(bin, 0), histogram_bins - 1);
}
__device__ inline float bin_begin(int bin) {
  return bin == 0 ? 0.0f : __int_as_float((bin + first_bin) << bin_shift);
}

struct Distance {
  float maximum;
  float inverse_temperature;

  __device__ explicit Distance(Tempered tempered)
      : maximum(static_cast<float>(tempered.maximum)),
        inverse_temperature(static_cast<float>(fmin(tempered.inverse_temperature, 3e38))) {}
  __device__ int bin(float logit) const { return bin_of((maximum - logit) * inverse_temperature); }
};

// All ranks: adds this rank's tokens to the counts of rank 0, which are zero.
__device__ inline void count_bins(Slice slice, Distance distance, int32_t* counts) {
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  for (int i = static_cast<int>(threadIdx.x); i < slice.tokens; i += sample_threads)
    atomicAdd(&counts[distance.bin(slice.logits[i])], 1);
  if (cluster.block_rank() == 0) return;
  __syncthreads();
  int32_t* all = cluster.map_shared_rank(counts, 0);
  for (int i = static_cast<int>(threadIdx.x); i < histogram_bins; i += sample_threads)
    if (counts[i] != 0) atomicAdd(&all[i], counts[i]);
}

// Rank 0: which bins' tokens are candidates, for all ranks: shared.low to bound; both -1 where they
// would be too many.
__device__ inline void choose_bins(const RowSampling& row, bool top_k, int32_t* counts,
                                   RowShared& shared) {
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  const bool top_p = row.top_p < 1;
  const int first = static_cast<int>(threadIdx.x) * bins_a_thread;
  int32_t count = 0;
  float mass = 0;
  float masses[bins_a_thread];
  for (int j = 0; j < bins_a_thread; ++j) {
    // About: whether it was enough is seen later.
    const float middle = 0.5f * (bin_begin(first + j) + bin_begin(first + j + 1));
    masses[j] = static_cast<float>(counts[first + j]) * (first + j == 0 ? 1.0f : expf(-middle));
    count += counts[first + j];
    mass += masses[j];
  }
  if (threadIdx.x == 0) shared.found = histogram_bins - 1;
  const int32_t count_before =
      block_scan<sample_threads>(count, shared.count_of_warp).through - count;
  const Scan<float> scan = block_scan<sample_threads>(mass, shared.mass_of_warp);
  count = count_before;
  mass = scan.through - mass;
  const float enough = row.top_p * scan.total;
  for (int j = 0; j < bins_a_thread; ++j) {
    // Only where the border is passed: one thread, or two where sums are rounded apart.
    const bool tokens_lack = count < row.top_k;
    const bool mass_lacks = mass < enough;
    count += counts[first + j];
    mass += masses[j];
    counts[first + j] = count;
    if (top_k && tokens_lack && count >= row.top_k) atomicMin(&shared.found, first + j);
    if (top_p && !top_k && mass_lacks && mass >= enough) atomicMin(&shared.found, first + j + 1);
  }
  __syncthreads();
  if (threadIdx.x < ranks) {
    // Weights behind are zero; those behind min_p go unless top_p of a top_k counts them.
    int32_t all = bin_of(709) + 1;
    if (row.min_p > 0 && !(top_k && top_p)) all = min(all, bin_of(-logf(row.min_p)) + 1);
    int32_t low = 0;
    int32_t bound = min(shared.found, all);
    if (counts[bound] > most_candidates) {
      // The border's bin, and as many around it as may be: the mass was an estimate.
      const int32_t border = shared.found - static_cast<int32_t>(!top_k);
      const auto before = [&](int32_t bin) { return bin == 0 ? 0 : counts[bin - 1]; };
      low = bound = -1;
      for (int32_t around = 0; around <= (top_k ? 0 : 8) && top_k != top_p; ++around) {
        const int32_t from = max(border - around, 0);
        const int32_t to = min(border + around, histogram_bins - 1);
        if (counts[to] - before(from) > most_candidates) break;
        low = from;
        bound = to;
      }
    }
    RowShared* to = cluster.map_shared_rank(&shared, static_cast<int>(threadIdx.x));
    to->low = low;
    to->bound = bound;
    to->above_low = low <= 0 ? 0 : counts[low - 1];
    to->complete = static_cast<int32_t>(bound == all || bound == histogram_bins - 1);
  }
}

// Candidates as sorted: ascending keys are descending logits, then ascending tokens.
__device__ inline uint64_t candidate_key(float logit, int32_t token) {
  return uint64_t{~order_of(logit)} << 32 | static_cast<uint32_t>(token);
}

// All ranks: the bins' tokens into rank 0's `keys`, in any order. `own` is memory of this
// rank for as many.
__device__ inline void gather_candidates(Slice slice, Distance distance, uint64_t* own,
                                         uint64_t* keys, RowShared& shared) {
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  const int low = shared.low;
  const int bound = shared.bound;
  for (int i = static_cast<int>(threadIdx.x); i < slice.tokens; i += sample_threads) {
    const int bin = distance.bin(slice.logits[i]);
    if (bin >= low && bin <= bound)
      own[atomicAdd(&shared.gathered, 1)] = candidate_key(slice.logits[i], slice.first + i);
  }
  __syncthreads();
  const int count = shared.gathered;
  if (threadIdx.x == 0 && count > 0)
    shared.place = atomicAdd(cluster.map_shared_rank(&shared.candidates, 0), count);
  __syncthreads();
  uint64_t* to = cluster.map_shared_rank(keys, 0);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += sample_threads)
    to[shared.place + i] = own[i];
}

// Bitonic; `count` is a power of two. Begins and ends with a barrier.
__device__ inline void sort_keys(uint64_t* keys, int count) {
  __syncthreads();
  for (int size = 2; size <= count; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      for (int i = static_cast<int>(threadIdx.x); i < count / 2; i += sample_threads) {
        const int low = 2 * i - (i & (stride - 1));
        const uint64_t a = keys[low];
        const uint64_t b = keys[low + stride];
        if ((a > b) == ((low & size) == 0)) {
          keys[low] = b;
          keys[low + stride] = a;
        }
      }
      __syncthreads();
    }
  }
}

// All ranks: the sums of all blocks in rank 0, and the weight of what is more probable than all
// candidates.
__device__ inline void sum_all(Slice slice, Tempered tempered, Distance distance, double* sums,
                               RowShared& shared) {
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  const int low = shared.low;
  double above = 0;
  sum_blocks(slice, tempered, {}, sums, [&](float logit, double weight) {
    if (low > 0 && distance.bin(logit) < low) above += weight;
  });
  above = block_scan<sample_threads>(above, shared.sum_of_warp).total;
  if (threadIdx.x == 0)
    cluster.map_shared_rank(&shared, 0)->mass_above_low[cluster.block_rank()] = above;
}

// Rank 0, all threads: how many of the sorted candidates top_k and top_p leave; -1 where candidates
// are missing. `sums` are those of all blocks, needed for top_p without top_k.
__device__ inline int32_t count_kept(const RowSampling& row, bool top_k, Terms sums, Terms weights,
                                     double doubt, RowShared& shared) {
  const int32_t all = weights.count;
  if (top_k) weights.count = min(all, row.top_k - shared.above_low);
  if (row.top_p >= 1) return weights.count;
  double above = 0;
  for (int rank = 0; rank < ranks && shared.low > 0; ++rank) above += shared.mass_above_low[rank];
  const int32_t last =
      cross({weights, top_k ? weights : sums, static_cast<double>(row.top_p), true, above}, doubt,
            shared)
          .index;
  if (last < weights.count) return shared.low > 0 && last == 0 ? -1 : last + 1;
  return top_k || shared.complete != 0 ? weights.count : -1;
}

// Rank 0: the token at `uniform` of the first `kept` sorted candidates that min_p leaves.
__device__ inline int32_t draw_from_kept(const RowSampling& row, Tempered tempered, int32_t kept,
                                         int32_t padded, double uniform, double doubt,
                                         uint64_t* keys, double* weights, RowShared& shared) {
  for (int i = static_cast<int>(threadIdx.x); i < padded; i += sample_threads) {
    const bool stays = i < kept && weights[i] >= static_cast<double>(row.min_p);
    keys[i] = stays ? keys[i] << 32 | keys[i] >> 32 : ~uint64_t{0};  // by token
  }
  sort_keys(keys, padded);
  for (int i = static_cast<int>(threadIdx.x); i < kept; i += sample_threads) {
    const auto order = ~static_cast<uint32_t>(keys[i]);
    weights[i] = keys[i] == ~uint64_t{0} ? 0 : tempered.weight(logit_of(order));
  }
  __syncthreads();
  const Terms shares{weights, kept};
  return static_cast<int32_t>(keys[cross({shares, shares, uniform, false}, doubt, shared).index] >>
                              32);
}

// Rank 0: sorts, cuts and perhaps draws; the same in all threads. keys and weights
// [most_candidates].
__device__ inline Outcome use_candidates(const RowSampling& row, Tempered tempered, bool top_k,
                                         Terms sums, double uniform, double doubt, uint64_t* keys,
                                         double* weights, RowShared& shared) {
  const int32_t count = shared.candidates;
  int padded = 2;
  while (padded < count) padded *= 2;
  for (int i = count + static_cast<int>(threadIdx.x); i < padded; i += sample_threads)
    keys[i] = ~uint64_t{0};
  sort_keys(keys, padded);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += sample_threads)
    weights[i] = tempered.weight(logit_of(~static_cast<uint32_t>(keys[i] >> 32)));
  __syncthreads();
  const int32_t kept = count_kept(row, top_k, sums, {weights, count}, doubt, shared);
  if (kept <= 0) return {-1, 0};
  if (shared.low > 0) return {-1, ~keys[kept - 1]};
  return {draw_from_kept(row, tempered, kept, padded, uniform, doubt, keys, weights, shared), 0};
}

}  // namespace qnext::ops::cuda
