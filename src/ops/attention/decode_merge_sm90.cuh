// How the answer form cuts contexts into pieces and merges their results: first the pieces of a
// cluster in order (in the blocks' shared memory, or later: the same operations), then clusters.
#pragma once

#include <algorithm>

#include "ops/activation/activation_device.h"
#include "ops/attention/paged_sm90.cuh"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

constexpr int cluster_pieces = 16;

// How the positions that a row sees are cut. Up to 2,048 into at most 16 pieces of 64 or 128
// positions, which a cluster merges. From there on contexts begin alike: 16 pieces of 128
// positions, 56 of 256, then 512 each: few blocks must fill the GPU, and a partial result is 3 % of
// 512 positions in f8.
// Long ones have pieces of one length, which grows every answer_span positions: with two kv heads
// and two blocks an SM, a sequence's pieces are what an H200 runs at once, so that no block starts
// or ends while others read. From 270,336 positions on they grow no more: a lane holds the number
// of one page.
constexpr int most_piece = 2048;
constexpr int64_t cut_alike = 65536;
constexpr int64_t pieces_at_once = 132;
static_assert(answer_span == pieces_at_once * page_positions);

struct Pieces {
  int64_t positions;
  int64_t length;  // of a piece; 0: as the table says

  __host__ __device__ explicit constexpr Pieces(int64_t positions_)
      : positions(positions_),
        length(positions_ <= 1024        ? 64
               : positions_ <= 2048      ? 128
               : positions_ <= cut_alike ? 0
               : positions_ > pieces_at_once * most_piece
                   ? most_piece
                   : (positions_ + answer_span - 1) / answer_span * page_positions) {}

  __host__ __device__ constexpr int64_t begin(int64_t i) const {
    return length > 0 ? length * i
           : i < 16   ? 128 * i
           : i < 72   ? 2048 + 256 * (i - 16)
                      : 16384 + 512 * (i - 72);
  }
  __host__ __device__ constexpr int64_t count() const {
    return positions <= 1024    ? (positions + 63) / 64  // no division by a variable
           : positions <= 2048  ? (positions + 127) / 128
           : length > 0         ? (positions + length - 1) / length
           : positions <= 16384 ? 16 + (positions - 2048 + 255) / 256
                                : 72 + (positions - 16384 + 511) / 512;
  }
};
static_assert(Pieces(1024).count() == cluster_pieces && Pieces(2048).count() == cluster_pieces &&
              Pieces(16384).begin(16) == 2048 &&
              Pieces(cut_alike).begin(Pieces(16384).count()) == 16384);
static_assert(Pieces(pieces_at_once * most_piece).length == most_piece);

// Room for the pieces of any row that sees up to so many positions.
constexpr int64_t most_pieces(int64_t positions) {
  const int64_t own = Pieces(positions).count();
  if (positions <= cut_alike) return positions <= 2048 ? int64_t{cluster_pieces} : own;
  return std::max({own, pieces_at_once, Pieces(cut_alike).count()});
}

// Partial results: of row r, head h, piece p at index (r * heads + h) * pieces + p.
struct Answer {
  Batch batch;
  PagedShape shape;
  PagedCache cache;
  PagedAttention inputs;
  int pieces;         // room for a row's, at least most_pieces() of the longest
  int column_groups;  // of a sequence
  float* sums;        // [...][head_dim]
  float2* weights;    // [...]: highest score * log2(e), sum of 2^(score - highest)
};

// A sum over some keys for four dimensions; weight: highest score, sum of weights below it.
struct Partial {
  float2 weight;
  float4 sums;
};
__device__ inline void add_scaled(Partial& to, const float2& weight, const float4& sums) {
  const float factor = exp2_fast(weight.x - to.weight.x);
  to.weight.y = fmaf(weight.y, factor, to.weight.y);
  to.sums.x = fmaf(sums.x, factor, to.sums.x);
  to.sums.y = fmaf(sums.y, factor, to.sums.y);
  to.sums.z = fmaf(sums.z, factor, to.sums.z);
  to.sums.w = fmaf(sums.w, factor, to.sums.w);
}
// The first `count` of a cluster's pieces, in order.
__device__ inline Partial merge_cluster(const float2 (&weights)[cluster_pieces],
                                        const float4 (&sums)[cluster_pieces], int count) {
  Partial merged{{-INFINITY, 0}, {0, 0, 0, 0}};
#pragma unroll
  for (int p = 0; p < cluster_pieces; ++p)
    if (p < count) merged.weight.x = fmaxf(merged.weight.x, weights[p].x);
#pragma unroll
  for (int p = 0; p < cluster_pieces; ++p)
    if (p < count) add_scaled(merged, weights[p], sums[p]);
  return merged;
}
__device__ inline Partial merge_two(const Partial& first, const Partial& second) {
  Partial merged{{fmaxf(first.weight.x, second.weight.x), 0}, {0, 0, 0, 0}};
  add_scaled(merged, first.weight, first.sums);
  add_scaled(merged, second.weight, second.sums);
  return merged;
}

// Four dimensions of a row's head are done.
__device__ inline uint2 gate_of(const Answer& a, int64_t row, int head, int d) {
  return *reinterpret_cast<const uint2*>(a.inputs.gate + row * a.inputs.gate_stride +
                                         head * 2 * a.shape.head_dim + d);
}
__device__ inline void finish(const Answer& a, int64_t row, int head, int d, const Partial& merged,
                              const uint2& gate) {
  const float factor = 1.0f / merged.weight.y;
  const float4& sums = merged.sums;
  const uint2 result{bf16_pair(sums.x * factor * gate_factor(low_value(gate.x)),
                               sums.y * factor * gate_factor(high_value(gate.x))),
                     bf16_pair(sums.z * factor * gate_factor(low_value(gate.y)),
                               sums.w * factor * gate_factor(high_value(gate.y)))};
  *reinterpret_cast<uint2*>(a.inputs.out + row * a.inputs.out_stride + head * a.shape.head_dim +
                            d) = result;
}

// What lies at `mine` in the shared memory of block `rank` of the cluster.
template <typename T>
__device__ inline T of_block(const void* mine, int rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(shared_address(mine)), "r"(rank));
  T value;
  if constexpr (sizeof(T) == 8)
    asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
                 : "=f"(value.x), "=f"(value.y)
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "r"(address)
                 : "memory");
  return value;
}

// The pieces of a row and head, for up to 64 of its dimensions: 16 threads of four dimensions each,
// 16 lots; lot i merges clusters of pieces i, i + 16, ..., then the lots are added in order.
constexpr int merge_dims = 64;
constexpr int merge_lots = 16;
constexpr int merge_threads = merge_lots * merge_dims / 4;

static __global__ void __launch_bounds__(merge_threads) merge_kernel(const Answer a) {
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

}  // namespace qnext::ops::cuda
