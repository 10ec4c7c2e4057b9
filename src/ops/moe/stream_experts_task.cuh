// What the kernels behind stream_experts() are given, and how they share out their shared memory.
#pragma once

#include <cstdint>

#include "ops/moe/expert_units.cuh"
#include "ops/moe/packed_experts_cuda.h"
#include "ops/moe/route_cuda.h"
#include "ops/moe/route_row.cuh"
#include "ops/moe/stream_experts_cuda.h"

namespace qnext::ops::cuda {

// One kind of matrix of all experts, with what the kernels would otherwise work out again.
struct ExpertMatrices {
  const std::byte* tiles;
  const float* scales;
  int64_t expert_bytes, expert_scales;
  int32_t strip_bytes, strip_scales;
  int32_t strips, column_tiles, chunks;
  Divisor by_strips, by_chunks;

  ExpertMatrices() = default;
  explicit ExpertMatrices(const PackedMatrix& first)
      : tiles(first.tiles),
        scales(first.scales),
        expert_bytes(first.bytes()),
        expert_scales(first.scale_count()),
        strip_bytes(static_cast<int32_t>(first.strip_bytes())),
        strip_scales(static_cast<int32_t>(first.strip_scales())),
        strips(static_cast<int32_t>(first.row_tiles())),
        column_tiles(static_cast<int32_t>(first.column_tiles())),
        chunks((column_tiles + chunk_tiles - 1) / chunk_tiles),
        by_strips(strips),
        by_chunks(chunks) {}

  __device__ int32_t tiles_of(int32_t chunk) const {
    return min(chunk_tiles, column_tiles - chunk * chunk_tiles);
  }
  template <typename Ring>
  __device__ void issue(Ring& ring, int32_t expert, int32_t strip, int32_t chunk,
                        bool again) const {
    ring.issue(tiles + expert * expert_bytes + int64_t{strip} * strip_bytes +
                   int64_t{chunk} * ring.chunk_bytes,
               tiles_of(chunk),
               scales + expert * expert_scales + strip * strip_scales + chunk_tiles * chunk, again);
  }
};

struct ExpertsTask {
  ExpertMatrices gate_up, down;
  int32_t experts;  // all, the shared one included
  int32_t hidden;
  Routing routing;
  int32_t rows, slots;
  int32_t row_units;    // one row: most units of a block in gate and up
  ExpertGroups groups;  // more than one row only
  const Bf16* normed;
  int64_t normed_stride;
  // bf16 [rows * slots, act_stride]: each 64 columns in the order in which lanes want them, see
  // act_place().
  Bf16* act;
  int64_t act_stride;
  float* parts;  // [rows * slots, hidden]: more than one row only
  float* x;
  int64_t x_stride;
  NextNorm next;
  ExpertTurns* turns;  // a few rows only; may be null

  __host__ __device__ int32_t pairs() const { return rows * slots; }
  // More than one row. Groups of the shared expert, of which nothing has to be known, come first.
  __device__ int32_t shared_groups() const { return routing.shared ? groups_of(rows) : 0; }
  // A group's expert, and whether it has other groups as well.
  __device__ short2 expert_of(int32_t group) const {
    const int32_t shared = shared_groups();
    if (group < shared)
      return {static_cast<short>(experts - 1), static_cast<short>(shared > 1 ? 1 : 0)};
    return groups.expert[group - shared];
  }
  __device__ LanePairs lane_pairs(int32_t group) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
    const int32_t shared = shared_groups();
    if (group < shared) {
      const auto pair = [&](int32_t column) {
        const int32_t row = 8 * group + column;
        return row < rows ? row * slots + slots - 1 : -1;
      };
      return {pair(lane / 4), {pair(lane % 4 * 2), pair(lane % 4 * 2 + 1)}};
    }
    const int16_t* columns = groups.columns + 8 * (group - shared);
    const short2 out = *reinterpret_cast<const short2*>(columns + lane % 4 * 2);
    return {columns[lane / 4], {out.x, out.y}};
  }
};

// The strip and the group of a unit; the expert is for its kernel to find.
__device__ inline Unit unit_at(int32_t index, const ExpertMatrices& matrices) {
  const int32_t group = matrices.by_strips.divide(index);
  return {0, index - group * matrices.strips, group, false};
}

// Rows 8 strip .. 8 strip + 7 of gate give columns of act; this is where row g of them lies in a
// row of act: lane t of a quad finds its 16 values of a tile (4 steps x b[0], b[1]) in 32 bytes.
__device__ inline int64_t act_place(int32_t strip, int g) {
  return int64_t{tile_columns} * (strip / 8) + g / 2 * 16 + strip % 8 / 2 * 4 + strip % 2 * 2 +
         g % 2;
}

// Cuts a block's shared memory into arrays; with a null base it counts bytes.
class Carver {
 public:
  __host__ __device__ explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  __host__ __device__ T* take(int64_t count) {
    const int64_t alignment = alignof(T) < 16 ? 16 : alignof(T);
    bytes_ = (bytes_ + alignment - 1) / alignment * alignment;
    T* start = reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += count * static_cast<int64_t>(sizeof(T));
    return start;
  }
  __host__ __device__ int64_t bytes() const { return bytes_; }

 private:
  std::byte* base_;
  int64_t bytes_ = 0;
};

// What the kernels of more rows need: a ring a warp.
template <PackedFormat format>
struct CommonMemory {
  using Ring = ChunkRing<format>;
  typename Ring::Memory* rings;  // [expert_warps]

  __host__ __device__ CommonMemory(Carver& carver, const ExpertsTask&)
      : rings(carver.take<typename Ring::Memory>(expert_warps)) {}
};

}  // namespace qnext::ops::cuda
