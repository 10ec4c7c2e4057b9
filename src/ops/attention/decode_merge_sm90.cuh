// How the answer form cuts contexts into pieces and merges their results: first the pieces of a
// cluster in order (in the blocks' shared memory, or later: the same operations), then clusters.
#pragma once

#include <algorithm>

#include "ops/activation/activation_device.h"
#include "ops/attention/paged_sm90.cuh"
#include "ops/launch_cuda.cuh"
#include "ops/sm90/cluster.cuh"

namespace qnext::ops::cuda {

constexpr int cluster_pieces = 16;
constexpr int cluster_positions = 2048;  // that they hold

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

// A cluster's pieces.
__host__ __device__ constexpr int short_piece(int64_t positions) {
  return positions <= 1024 ? 64 : 128;
}
__host__ __device__ constexpr int short_pieces(int positions) {
  return positions <= 1024 ? (positions + 63) / 64
                           : (positions + 127) / 128;  // no variable divisor
}

struct Pieces {
  int64_t positions;
  int64_t length;  // of a piece; 0: as the table says

  __host__ __device__ explicit constexpr Pieces(int64_t positions_)
      : positions(positions_),
        length(positions_ <= 2048        ? short_piece(positions_)
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
    return positions <= 2048    ? short_pieces(static_cast<int>(positions))
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
  int group;          // query heads a kv head
  int column_groups;  // of a sequence
  float* sums;        // [...][head_dim]
  float2* weights;    // [...]: highest score * log2(e), sum of 2^(score - highest)
};

// What a launch over the pieces of `longest` positions works on, and the merging kernel behind it,
// where no cluster has merged them. Both in decode_attention_sm90.cu.
Answer answer_of(const Batch& batch, const PagedShape& shape, const PagedCache& cache,
                 const PagedAttention& inputs, int64_t longest, void* workspace);
void merge_answer(cudaStream_t stream, const Answer& answer, int64_t most_rows);

// A sum over some keys for four dimensions; weight: highest score, sum of weights below it.
struct Partial {
  float2 weight;
  float4 sums;
};
__device__ inline void add_times(Partial& to, float weight, const float4& sums, float factor) {
  to.weight.y = fmaf(weight, factor, to.weight.y);
  to.sums.x = fmaf(sums.x, factor, to.sums.x);
  to.sums.y = fmaf(sums.y, factor, to.sums.y);
  to.sums.z = fmaf(sums.z, factor, to.sums.z);
  to.sums.w = fmaf(sums.w, factor, to.sums.w);
}
__device__ inline void add_scaled(Partial& to, const float2& weight, const float4& sums) {
  add_times(to, weight.y, sums, exp2_fast(weight.x - to.weight.x));
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
  const uint32_t address = sm90::address_in_block(shared_address(mine), rank);
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

}  // namespace qnext::ops::cuda
