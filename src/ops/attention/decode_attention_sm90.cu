// The answer form: memory-bound, so everything serves one stream of keys and values a warp.
//
// A context is cut into pieces by its length alone (Pieces: short ones first, where few of them
// must fill the GPU, long ones behind, where a partial result should cost little). A block
// takes a piece of one kv head for the rows of a sequence. Its four warps take units of 16 or 32
// positions by turns, each through a ring of its own: the warp orders bulk copies of the units to
// come, so that no warp waits for another until the piece ends. Then the warps' results are merged
// in order, the pieces' by sixteens in order, and the sixteens in a fixed pattern.
//
// Products: scores [16 positions, columns] = keys x queries, out [head_dim, columns] = values^T x
// weights, by mma.m16n8k16; a column is a query head of a row, so the 8 heads of a kv head are n8.
// f8 is widened to f16 in registers, exactly; the order of dimensions and positions inside a
// product is free, so fragments are taken in the order that widening leaves.
//
// More columns: up to 2 tiles of 8 a warp, then twice the warps for 4 tiles; beyond that further
// blocks, whose keys the L2 cache holds. A column's operations are the same in all of them.
//
// Up to 2,048 positions the pieces, 16 at most, are the blocks of a cluster, which merges them
// through its shared memory: one launch. Else a second kernel merges, with the same operations.
#include "base/cuda_error.h"
#include "ops/attention/decode_warp_sm90.cuh"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

// clustered: the blocks of the first pieces form a cluster, which merges them and is done.
template <KvFormat format, int tiles, int column_warps, int fixed_dim, bool clustered>
__device__ __forceinline__ void answer_block(const Answer& a) {
  extern __shared__ std::byte shared_memory[];
  let_next_kernel_start();
  // The batch is older than the kernels that still run.
  AnswerWarp<format, tiles, column_warps, fixed_dim, clustered> warp(
      a, shared_memory, tiles > 1 && column_warps == 1);
  // A cluster's blocks stay together.
  const bool idle = warp.work.first_column >= warp.work.columns ||
                    (!clustered && warp.work.begin > warp.work.last);
  // Without waiting, as it writes nothing: blocks of pieces that there are may take its place. The
  // first piece always is, so that this kernel's end still implies that of the kernels before.
  if (idle && warp.work.piece > 0) return;
  if (!idle) warp.fill_ring(true);
  wait_for_earlier_kernels();
  if (idle) return;
  warp.fill_ring(false);
  warp.run();
}

template <KvFormat format, int tiles, int column_warps, int fixed_dim>
__global__ void __launch_bounds__(
    AnswerLayout<format, tiles, column_warps, fixed_dim, false>::threads,
    AnswerLayout<format, tiles, column_warps, fixed_dim, false>::blocks)
    answer_kernel(const Answer a) {
  answer_block<format, tiles, column_warps, fixed_dim, false>(a);
}
template <KvFormat format, int tiles, int column_warps, int fixed_dim>
__global__ void __launch_bounds__(
    AnswerLayout<format, tiles, column_warps, fixed_dim, true>::threads,
    AnswerLayout<format, tiles, column_warps, fixed_dim, true>::blocks)
    short_answer_kernel(const Answer a) {
  answer_block<format, tiles, column_warps, fixed_dim, true>(a);
}

// The pieces of a row and head, for up to 64 of its dimensions: 16 threads of four dimensions each,
// 16 lots; lot i merges clusters of pieces i, i + 16, ..., then the lots are added in order.
constexpr int merge_dims = 64;
constexpr int merge_lots = 16;
constexpr int merge_threads = merge_lots * merge_dims / 4;

__global__ void __launch_bounds__(merge_threads) merge_kernel(const Answer a) {
  __shared__ float4 lot_sums[merge_lots][merge_dims / 4];
  __shared__ float2 lot_weights[merge_lots];
  let_next_kernel_start();
  const auto dim = static_cast<int>(a.shape.head_dim);
  const int slices = (dim + merge_dims - 1) / merge_dims;
  const SequenceRows sequence = a.batch.sequence[blockIdx.z];  // older than running kernels
  wait_for_earlier_kernels();
  const auto in_sequence = static_cast<int>(blockIdx.y);
  if (in_sequence >= sequence.rows) return;
  const int64_t row = sequence.first_row + in_sequence;
  const int head = static_cast<int>(blockIdx.x) / slices;
  const int thread = static_cast<int>(threadIdx.x);
  const int lot = thread / (merge_dims / 4);
  const int d = static_cast<int>(blockIdx.x) % slices * merge_dims + thread % (merge_dims / 4) * 4;
  const auto pieces = static_cast<int>(Pieces(sequence.first_position + in_sequence + 1).count());
  const int64_t first = (row * a.shape.query_heads + head) * a.pieces;

  const uint2 gate = gate_of(a, row, head, min(d, dim - 4));
  Partial mine{{-INFINITY, 0}, {0, 0, 0, 0}};
  for (int c = lot * cluster_pieces; c < pieces; c += merge_lots * cluster_pieces) {
    float2 weights[cluster_pieces];
    float4 sums[cluster_pieces];
#pragma unroll
    for (int p = 0; p < cluster_pieces; ++p) {
      const int64_t index = first + min(c + p, pieces - 1);  // no branches: loads go together
      weights[p] = a.weights[index];
      sums[p] = *reinterpret_cast<const float4*>(a.sums + index * dim + min(d, dim - 4));
    }
    const Partial cluster = merge_cluster(weights, sums, pieces - c);
    mine = c < merge_lots * cluster_pieces ? cluster : merge_two(mine, cluster);
  }
  lot_sums[lot][thread % (merge_dims / 4)] = mine.sums;
  if (thread % (merge_dims / 4) == 0) lot_weights[lot] = mine.weight;
  __syncthreads();
  if (lot != 0 || d >= dim) return;
#pragma unroll
  for (int i = 1; i < merge_lots; ++i)
    if (i * cluster_pieces < pieces) mine = merge_two(mine, {lot_weights[i], lot_sums[i][thread]});
  finish(a, row, head, d, mine, gate);
}

template <KvFormat format, int tiles, int column_warps, int fixed_dim>
void launch_block(cudaStream_t stream, Answer answer, int columns) {
  using Block = AnswerLayout<format, tiles, column_warps, fixed_dim, false>;
  using ShortBlock = AnswerLayout<format, tiles, column_warps, fixed_dim, true>;
  static_assert(ShortBlock::columns == Block::columns && ShortBlock::threads == Block::threads);
  answer.column_groups = (columns + Block::columns - 1) / Block::columns;
  const bool clustered = answer.pieces <= cluster_pieces;
  const dim3 grid(static_cast<unsigned>(answer.pieces),
                  static_cast<unsigned>(answer.shape.kv_heads * answer.column_groups),
                  static_cast<unsigned>(answer.batch.sequences));
  if (clustered)
    launch_clusters("answer attention", short_answer_kernel<format, tiles, column_warps, fixed_dim>,
                    grid.x, grid, Block::threads, ShortBlock::shared_bytes, stream, answer);
  else
    launch_overlapped("answer attention", answer_kernel<format, tiles, column_warps, fixed_dim>,
                      grid, Block::threads, Block::shared_bytes, stream, answer);
}

// Whether blocks of 8 columns each, which share out what comes behind the keys, all run at once.
bool has_room_for_narrow(const Answer& answer, int columns) {
  const int64_t groups = (columns + 7) / 8;
  return answer.pieces * answer.shape.kv_heads * answer.batch.sequences * groups <=
         multiprocessors();
}

template <KvFormat format, int fixed_dim>
void launch_columns(cudaStream_t stream, const Answer& answer, int columns) {
  if (columns <= 8 || has_room_for_narrow(answer, columns))
    launch_block<format, 1, 1, fixed_dim>(stream, answer, columns);
  else if (columns <= 16)
    launch_block<format, 2, 1, fixed_dim>(stream, answer, columns);
  else
    launch_block<format, 2, 2, fixed_dim>(stream, answer, columns);
}

template <KvFormat format>
void launch_format(cudaStream_t stream, const Answer& answer, int columns) {
  switch (answer.shape.head_dim) {
    case 256:
      return launch_columns<format, 256>(stream, answer, columns);
    case 128:
      return launch_columns<format, 128>(stream, answer, columns);
    case 64:
      return launch_columns<format, 64>(stream, answer, columns);
    default:
      return launch_columns<format, 0>(stream, answer, columns);
  }
}

}  // namespace

size_t paged_answer_workspace(const PagedShape& shape, int64_t rows, int64_t longest) {
  return static_cast<size_t>(rows * shape.query_heads * most_pieces(longest) *
                             (shape.head_dim + 2)) *
         sizeof(float);
}

Answer answer_of(const Batch& batch, const PagedShape& shape, const PagedCache& cache,
                 const PagedAttention& inputs, int64_t longest, void* workspace) {
  const auto pieces = static_cast<int>(most_pieces(longest));
  auto* const sums = static_cast<float*>(workspace);
  float* const weights = sums + batch.rows * shape.query_heads * pieces * shape.head_dim;
  const auto group = static_cast<int>(shape.query_heads / shape.kv_heads);
  return {batch, shape, cache, inputs, pieces, group, 1, sums, reinterpret_cast<float2*>(weights)};
}

void merge_answer(cudaStream_t stream, const Answer& answer, int64_t most_rows) {
  if (answer.pieces <= cluster_pieces) return;
  const int64_t slices = (answer.shape.head_dim + merge_dims - 1) / merge_dims;
  const dim3 grid(static_cast<unsigned>(answer.shape.query_heads * slices),
                  static_cast<unsigned>(most_rows), static_cast<unsigned>(answer.batch.sequences));
  launch_overlapped("merge attention", merge_kernel, grid, merge_threads, 0, stream, answer);
}

void paged_attention_answer(cudaStream_t stream, const Batch& batch, const PagedShape& shape,
                            const PagedCache& cache, const PagedAttention& inputs,
                            int64_t most_rows, int64_t longest, void* workspace) {
  if (shape.head_dim > widest_head || shape.head_dim % 16 != 0)
    fail_cuda("paged attention takes heads of multiples of 16 dimensions up to 256");
  if (most_rows > most_answer_rows) fail_cuda("an answer has at most 8 rows a sequence");
  if (batch.sequences == 0) return;
  const Answer answer = answer_of(batch, shape, cache, inputs, longest, workspace);
  const auto columns = static_cast<int>(most_rows) * answer.group;
  if (shape.format == KvFormat::bf16)
    launch_format<KvFormat::bf16>(stream, answer, columns);
  else
    launch_format<KvFormat::f8>(stream, answer, columns);
  merge_answer(stream, answer, most_rows);
}

}  // namespace qnext::ops::cuda
