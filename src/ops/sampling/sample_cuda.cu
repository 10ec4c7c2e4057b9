// Ladder: the plain way sorts every row's vocabulary, or copies it to the host. Here a cluster of
// eight blocks holds a row in its shared memory, so that it is read once; then
//   1. the largest logit: greedy rows end here;
//   2. no truncation: sums of 64 tokens, then the draw: first 64, then one of them
//   (sample_row.cuh);
//   3. truncation: a histogram by distance to the largest logit finds the candidates, a few dozen
//      as a rule: sorted and drawn from in one block; where more than 1,024 tokens are left, only
//      those near the border are sorted, then 2 (sample_candidates.cuh);
//   4. where even those are too many: the border digit by digit (sample_threshold.cuh), then 2.
#include <cuda_pipeline.h>

#include "base/cuda_error.h"
#include "ops/launch_cuda.cuh"
#include "ops/sampling/sample_candidates.cuh"
#include "ops/sampling/sample_cuda.h"
#include "ops/sampling/sample_threshold.cuh"

namespace qnext::ops::cuda {

namespace {

// Behind the slice in shared memory: a histogram, later the candidates' keys; keys of this rank,
// later the candidates' weights; sums of blocks. A histogram's amounts use the last two.
constexpr size_t histogram_bytes = histogram_bins * sizeof(int32_t);
constexpr size_t candidate_bytes = most_candidates * sizeof(uint64_t);
constexpr size_t amount_bytes = histogram_bins * sizeof(uint64_t);
static_assert(candidate_bytes <= histogram_bytes);

struct Plan {
  int64_t slice;  // tokens a rank
  size_t shared_bytes;

  explicit Plan(int64_t vocabulary) {
    const int64_t blocks = (vocabulary + logit_block - 1) / logit_block;
    const int64_t a_rank = (blocks + ranks - 1) / ranks;
    slice = a_rank * logit_block;
    shared_bytes = static_cast<size_t>(slice) * sizeof(float) + histogram_bytes +
                   std::max(amount_bytes,
                            candidate_bytes + static_cast<size_t>(ranks * a_rank) * sizeof(double));
  }
};

bool aligned(const float* logits, int64_t stride) {
  return reinterpret_cast<uintptr_t>(logits) % 16 == 0 && stride % 4 == 0;
}

// Copies `count` of the slice's logits into shared memory, all of them under way at once.
__device__ void load_slice(Slice slice, const float* logits, int64_t count, bool wide) {
  const int whole = wide ? static_cast<int>(count / 4) : 0;
  for (int i = static_cast<int>(threadIdx.x); i < whole; i += sample_threads)
    __pipeline_memcpy_async(slice.logits + 4 * i, logits + 4 * i, 16);
  for (int i = 4 * whole + static_cast<int>(threadIdx.x); i < slice.tokens; i += sample_threads) {
    if (i < count)
      __pipeline_memcpy_async(slice.logits + i, logits + i, 4);
    else
      slice.logits[i] = -INFINITY;
  }
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
}

__device__ void change_logits(Slice slice, const RowSampling& row, const LogitChange* changes) {
  if (row.changes == 0) return;
  for (int i = static_cast<int>(threadIdx.x); i < row.changes; i += sample_threads) {
    const LogitChange change = changes[row.first_change + i];
    const int at = change.token - slice.first;
    if (at < 0 || at >= slice.tokens) continue;
    double logit = static_cast<double>(slice.logits[at]) + change.bias;
    const auto repetition = static_cast<double>(row.repetition_penalty);
    if (change.in_answer >= 0) logit = logit > 0 ? logit / repetition : logit * repetition;
    if (change.in_answer > 0)
      logit -= static_cast<double>(row.presence_penalty) +
               static_cast<double>(row.frequency_penalty) * change.in_answer;
    slice.logits[at] = static_cast<float>(logit);
  }
  __syncthreads();
}

__device__ Best best_of_slice(Slice slice) {
  Best best;
  for (int i = static_cast<int>(threadIdx.x); i < slice.tokens; i += sample_threads)
    best.meet(slice.logits[i], static_cast<uint32_t>(slice.first + i));
  return best;
}

struct Drawn {
  int32_t* tokens;
  int32_t* copy;  // or null

  __device__ void store(int64_t row, int32_t token) const {
    tokens[row] = token;
    if (copy) copy[row] = token;
  }
};

// A cluster a row.
__global__ void __cluster_dims__(ranks, 1, 1) __launch_bounds__(sample_threads, 2)
    sample_kernel(const float* logits, int64_t stride, bool wide, int32_t vocabulary,
                  int32_t slice_tokens, const RowSampling* parameters, const LogitChange* changes,
                  double doubt, Drawn drawn) {
  extern __shared__ float4 memory[];
  __shared__ RowShared shared;
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  cluster.barrier_arrive();
  const auto rank = static_cast<int32_t>(cluster.block_rank());
  const int64_t row_index = blockIdx.x / ranks;
  const Slice slice{reinterpret_cast<float*>(memory), rank * slice_tokens, slice_tokens};
  auto* counts = reinterpret_cast<int32_t*>(slice.logits + slice_tokens);
  auto* keys = reinterpret_cast<uint64_t*>(counts);
  auto* own_keys = keys + most_candidates;
  auto* weights = reinterpret_cast<double*>(own_keys);
  double* sums = weights + most_candidates;
  for (int i = static_cast<int>(threadIdx.x); i < histogram_bins; i += sample_threads)
    counts[i] = 0;
  if (threadIdx.x == 0) {
    shared.candidates = 0;
    shared.gathered = 0;
  }
  let_next_kernel_start();
  wait_for_earlier_kernels();

  const int64_t left = vocabulary - slice.first;
  load_slice(slice, logits + row_index * stride + slice.first,
             left < slice_tokens ? max(left, int64_t{0}) : slice_tokens, wide);
  const RowSampling row = parameters[row_index];
  change_logits(slice, row, changes);
  const Best best = best_of_cluster<sample_threads>(best_of_slice(slice), shared.best_of_warp,
                                                    shared.best_of_rank);
  const bool writes = rank == 0 && threadIdx.x == 0;
  if (!best.valid() || row.temperature == 0) {
    if (writes) drawn.store(row_index, best.valid() ? static_cast<int32_t>(best.token) : -1);
    return;
  }

  const Tempered tempered{static_cast<double>(logit_of(best.order)),
                          1 / static_cast<double>(row.temperature)};
  const double uniform = uniform_of(row.seed, static_cast<uint64_t>(row.position));
  const bool top_k = row.top_k > 0 && row.top_k < vocabulary;
  Kept kept;
  if (top_k || row.top_p < 1 || row.min_p > 0) {
    const Distance distance(tempered);
    count_bins(slice, distance, counts);
    cluster.sync();
    if (rank == 0) choose_bins(row, top_k, counts, shared);
    cluster.sync();
    if (shared.bound >= 0) {
      if (row.top_p < 1 && !top_k) sum_all(slice, tempered, distance, sums, shared);
      gather_candidates(slice, distance, own_keys, keys, shared);
      cluster.sync();
      Outcome outcome{-1, 0};
      if (rank == 0)
        outcome = use_candidates(row, tempered, top_k,
                                 {sums, ranks * slice_tokens / static_cast<int32_t>(logit_block)},
                                 uniform, doubt, keys, weights, shared);
      if (rank == 0 && threadIdx.x < ranks)
        cluster.map_shared_rank(&shared, static_cast<int>(threadIdx.x))->outcome = outcome;
      cluster.sync();
      outcome = shared.outcome;
      if (outcome.token >= 0) {
        if (writes) drawn.store(row_index, outcome.token);
        return;
      }
      kept = {outcome.least_key, row.min_p};
    }
    if (kept.least_key == 0)
      kept = select_kept(slice, row, tempered, top_k, {counts, own_keys}, shared);
  }
  draw_from_all(slice, tempered, kept, uniform, doubt, sums, shared);
  if (writes) drawn.store(row_index, shared.token);
}

// Of four logits, all read before the first is used.
__device__ void meet_four(Best& best, const float4& x, uint32_t token) {
  best.meet(x.x, token);
  best.meet(x.y, token + 1);
  best.meet(x.z, token + 2);
  best.meet(x.w, token + 3);
}

constexpr int greedy_threads = 512;
constexpr int greedy_ahead = 4;

// A cluster a row; nothing is kept, so that more blocks share an SM than in sample_kernel.
__global__ void __cluster_dims__(ranks, 1, 1) __launch_bounds__(greedy_threads)
    greedy_kernel(const float* logits, int64_t stride, bool wide, int32_t vocabulary,
                  int32_t slice_tokens, Drawn drawn) {
  __shared__ Best of_warp[greedy_threads / warp_lanes];
  __shared__ Best of_rank[ranks];
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  cluster.barrier_arrive();
  const auto rank = static_cast<int32_t>(cluster.block_rank());
  const int64_t row = blockIdx.x / ranks;
  const int32_t first = rank * slice_tokens;
  const int32_t count = max(min(vocabulary - first, slice_tokens), 0);
  logits += row * stride + first;
  let_next_kernel_start();
  wait_for_earlier_kernels();

  Best best;
  const int whole = wide ? count / 4 : 0;
  const auto* fours = reinterpret_cast<const float4*>(logits);
  int i = static_cast<int>(threadIdx.x);
  for (; i + (greedy_ahead - 1) * greedy_threads < whole; i += greedy_ahead * greedy_threads) {
    float4 x[greedy_ahead];
#pragma unroll
    for (int j = 0; j < greedy_ahead; ++j) x[j] = fours[i + j * greedy_threads];
#pragma unroll
    for (int j = 0; j < greedy_ahead; ++j)
      meet_four(best, x[j], static_cast<uint32_t>(first + 4 * (i + j * greedy_threads)));
  }
  for (; i < whole; i += greedy_threads)
    meet_four(best, fours[i], static_cast<uint32_t>(first + 4 * i));
  for (i = 4 * whole + static_cast<int>(threadIdx.x); i < count; i += greedy_threads)
    best.meet(logits[i], static_cast<uint32_t>(first + i));
  best = best_of_cluster<greedy_threads>(best, of_warp, of_rank);
  if (rank == 0 && threadIdx.x == 0)
    drawn.store(row, best.valid() ? static_cast<int32_t>(best.token) : -1);
}

}  // namespace

void sample_rows(cudaStream_t stream, const float* logits, int64_t stride, int64_t rows,
                 int64_t vocabulary, const RowSampling* parameters, const LogitChange* changes,
                 int32_t* tokens, int32_t* copy, double doubt) {
  if (rows == 0) return;
  if (vocabulary > widest_sampled_vocabulary)
    fail_cuda("the vocabulary is wider than the GPU's sampler takes");
  const Plan plan(vocabulary);
  launch_overlapped("sample_rows", sample_kernel, static_cast<unsigned>(rows * ranks),
                    sample_threads, plan.shared_bytes, stream, logits, stride,
                    aligned(logits, stride), vocabulary, plan.slice, parameters, changes, doubt,
                    Drawn{tokens, copy});
}

void greedy_rows(cudaStream_t stream, const float* logits, int64_t stride, int64_t rows,
                 int64_t vocabulary, int32_t* tokens, int32_t* copy) {
  if (rows == 0) return;
  launch_overlapped("greedy_rows", greedy_kernel, static_cast<unsigned>(rows * ranks),
                    greedy_threads, 0, stream, logits, stride, aligned(logits, stride), vocabulary,
                    Plan(vocabulary).slice, Drawn{tokens, copy});
}

}  // namespace qnext::ops::cuda
