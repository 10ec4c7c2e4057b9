// Truncation where too many tokens lie near the border (many equal logits, very high temperatures,
// or wide top_k and top_p at once): the least probable one that stays is found digit by digit,
// from histograms of all ranks: first the bin of its distance to the most probable token, which
// spreads tokens well, then its logit's order (11, 11 and 10 bits), then, among equal logits, by
// counting tokens. Amounts are whole numbers, tokens or weights in units of 2^-44, so that
// nothing depends on the order in which threads add them.
#pragma once

#include "ops/sampling/sample_candidates.cuh"

namespace qnext::ops::cuda {

constexpr double mass_unit = 0x1p44;  // 2^19 tokens of weight 1 stay below 2^63

// This rank's histogram of one digit: tokens, and what is limited (tokens or mass).
struct DigitCounts {
  int32_t* tokens;   // [histogram_bins]
  uint64_t* amount;  // [histogram_bins]
};

// The tokens that a pass still looks at, and the digit it finds.
struct Digit {
  int bin = -1;         // the first pass finds it
  uint32_t prefix = 0;  // of the order, as far as it is known
  int shift = 32;       // of the prefix

  // The larger, the more probable; -1: not looked at.
  __device__ int of(float logit, Distance distance, int next_shift) const {
    const int found = histogram_bins - 1 - distance.bin(logit);
    if (bin < 0) return found;
    const uint32_t order = order_of(logit);
    if (found != bin || (shift < 32 && order >> shift != prefix)) return -1;
    return static_cast<int>(order >> next_shift & ((1u << (shift - next_shift)) - 1));
  }
};

struct Selection {
  Slice slice;
  Tempered tempered;
  DigitCounts counts;
  RowShared& shared;
  uint64_t floor;  // tokens with lesser keys are out already
  bool by_mass;    // else by tokens

  __device__ uint64_t amount(float logit) const {
    return by_mass ? __double2ull_rn(tempered.weight(logit) * mass_unit) : 1;
  }
  __device__ bool inside(uint32_t order, int i) const {
    return Kept::key(order, static_cast<uint32_t>(slice.first + i)) >= floor;
  }
};

// Adds to one bin for each thread of the warp, in one go where all add to the same: that, with flat
// logits, is where atomics are slow.
__device__ inline void add_to_bin(DigitCounts counts, int bin, uint64_t amount) {
  int same = 0;
  __match_all_sync(whole_warp, bin, &same);
  int32_t tokens = 1;
  if (same != 0) {
    for (int distance = warp_lanes / 2; distance > 0; distance /= 2)
      amount += __shfl_xor_sync(whole_warp, amount, distance);
    tokens = warp_lanes;
    if (threadIdx.x % warp_lanes != 0) bin = -1;
  }
  if (bin < 0) return;
  atomicAdd(&counts.tokens[bin], tokens);
  atomicAdd(reinterpret_cast<unsigned long long*>(&counts.amount[bin]),
            static_cast<unsigned long long>(amount));
}

// All ranks: this rank's histogram of the next digit, down to `next_shift`.
__device__ inline void count_digits(Selection selection, Digit digit, int next_shift) {
  const auto& [tokens, amount] = selection.counts;
  for (int i = static_cast<int>(threadIdx.x); i < histogram_bins; i += sample_threads) {
    tokens[i] = 0;
    amount[i] = 0;
  }
  __syncthreads();
  const Distance distance(selection.tempered);
  constexpr int ahead = 4;  // weights under way at once
  const int tokens_here = selection.slice.tokens;
  for (int base = 0; base < tokens_here; base += ahead * sample_threads) {
    int bins[ahead];
    uint64_t amounts[ahead] = {};
    bool any = false;
#pragma unroll
    for (int j = 0; j < ahead; ++j) {
      const int i = base + j * sample_threads + static_cast<int>(threadIdx.x);
      const float logit = selection.slice.logits[min(i, tokens_here - 1)];
      const bool inside = i < tokens_here && selection.inside(order_of(logit), i);
      bins[j] = inside ? digit.of(logit, distance, next_shift) : -1;
      any = any || bins[j] >= 0;
    }
    if (__any_sync(whole_warp, static_cast<int>(any)) == 0) continue;
#pragma unroll
    for (int j = 0; j < ahead; ++j) {
      const int i = base + j * sample_threads + static_cast<int>(threadIdx.x);
      amounts[j] = selection.amount(selection.slice.logits[min(i, tokens_here - 1)]);
    }
#pragma unroll
    for (int j = 0; j < ahead; ++j)
      add_to_bin(selection.counts, bins[j], bins[j] >= 0 ? amounts[j] : 0);
  }
}

// All ranks alike: the digit at which the amount, counted from the top, reaches the limit:
// shared.digit, with the amount above it in shared.above. With `share` > 0 the limit becomes that
// share of everything first.
__device__ inline void choose_digit(Selection selection, uint64_t above, double share,
                                    double& limit) {
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  const int top = histogram_bins - 1 - static_cast<int>(threadIdx.x) * bins_a_thread;
  uint64_t amounts[bins_a_thread] = {};
  for (int rank = 0; rank < ranks; ++rank) {
    const uint64_t* amount = cluster.map_shared_rank(selection.counts.amount, rank);
#pragma unroll
    for (int j = 0; j < bins_a_thread; ++j) amounts[j] += amount[top - j];
  }
  uint64_t mine = 0;
#pragma unroll
  for (int j = 0; j < bins_a_thread; ++j) mine += amounts[j];
  const Scan<uint64_t> scan = block_scan<sample_threads>(mine, selection.shared.amount_of_warp);
  const uint64_t all = above + scan.total;
  if (share > 0) limit = share * static_cast<double>(all);
  limit = fmin(limit, static_cast<double>(all));
  uint64_t through = above + scan.through - mine;
#pragma unroll
  for (int j = 0; j < bins_a_thread; ++j) {
    const uint64_t before = through;
    through += amounts[j];
    if (static_cast<double>(before) < limit && static_cast<double>(through) >= limit) {
      selection.shared.digit = top - j;
      selection.shared.above = before;
    }
  }
  __syncthreads();
}

// All ranks alike: the last of the first `count` tokens, in ascending order, whose logit's order is
// `order`; `bin` is where the last histogram counted them.
__device__ inline uint32_t find_tie(Selection selection, uint32_t order, int bin, int64_t count) {
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  RowShared& shared = selection.shared;
  Slice slice = selection.slice;
  for (int rank = 0; rank < static_cast<int>(cluster.block_rank()); ++rank)
    count -= cluster.map_shared_rank(selection.counts.tokens, rank)[bin];
  const int a_thread = (slice.tokens + sample_threads - 1) / sample_threads;
  const int begin = min(static_cast<int>(threadIdx.x) * a_thread, slice.tokens);
  const int end = min(begin + a_thread, slice.tokens);
  const auto matches = [&](int i) {
    return order_of(slice.logits[i]) == order && selection.inside(order, i);
  };
  int32_t ties = 0;
  for (int i = begin; i < end; ++i) ties += static_cast<int32_t>(matches(i));
  int64_t left = count - (block_scan<sample_threads>(ties, shared.count_of_warp).through - ties);
  if (left > 0 && left <= ties) {
    int i = begin;
    for (; left > 0; ++i) left -= static_cast<int64_t>(matches(i));
    for (int rank = 0; rank < ranks; ++rank)
      cluster.map_shared_rank(&shared, rank)->last_tie = static_cast<uint32_t>(slice.first + i - 1);
  }
  cluster.sync();
  return shared.last_tie;
}

// All ranks alike: the key of the least probable token that stays if tokens are taken from the top
// until their amount reaches `limit`, or `share` of all where that is not 0.
__device__ __noinline__ inline uint64_t select_key(Selection selection, double share,
                                                   double limit) {
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  Digit digit;
  uint64_t above = 0;
  for (const int next_shift : {32, 21, 10, 0}) {
    count_digits(selection, digit, next_shift);
    cluster.sync();
    choose_digit(selection, above, digit.bin < 0 ? share : 0, limit);
    above = selection.shared.above;
    const int found = selection.shared.digit;
    if (digit.bin < 0)
      digit.bin = found;
    else
      digit = {digit.bin, digit.prefix << (digit.shift - next_shift) | static_cast<uint32_t>(found),
               next_shift};
    if (next_shift > 0) cluster.sync();  // all have read the histograms
  }
  // Among equals so many that the limit is reached.
  const uint64_t each = selection.amount(logit_of(digit.prefix));
  const double missing = limit - static_cast<double>(above);
  const auto count =
      each == 0 ? INT64_MAX : static_cast<int64_t>(ceil(missing / static_cast<double>(each)));
  int64_t ties = 0;
  for (int rank = 0; rank < ranks; ++rank)
    ties += cluster.map_shared_rank(selection.counts.tokens, rank)[selection.shared.digit];
  const uint32_t last =
      find_tie(selection, digit.prefix, selection.shared.digit, min(max(count, int64_t{1}), ties));
  return Kept::key(digit.prefix, last);
}

// All ranks alike: what top_k, top_p and min_p leave.
__device__ inline Kept select_kept(Slice slice, const RowSampling& row, Tempered tempered,
                                   bool top_k, DigitCounts counts, RowShared& shared) {
  Kept kept;
  if (top_k)
    kept.least_key =
        select_key({slice, tempered, counts, shared, kept.least_key, false}, 0, row.top_k);
  if (row.top_p < 1)
    kept.least_key =
        select_key({slice, tempered, counts, shared, kept.least_key, true}, row.top_p, 0);
  kept.least_weight = row.min_p;
  return kept;
}

}  // namespace qnext::ops::cuda
