// act = silu(gate n) * up n for the chosen experts. Units (an expert's strip of 8 gate and 8 up
// rows, for up to 8 pairs) are shared out over persistent blocks; the block's 8 warps split a
// strip's columns: warp w sums chunks w, w + 8, ... and the warps are added in order. The x
// fragments stay in registers for as long as the pairs stay the same.
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/moe/stream_experts_task.cuh"

namespace qnext::ops::cuda {

template <PackedFormat format>
struct GateUpMemory : CommonMemory<format> {
  float4* partial;  // [2][2][expert_warps][warp_lanes]: of two pairs of units

  __host__ __device__ GateUpMemory(Carver& carver, const ExpertsTask& task)
      : CommonMemory<format>(carver, task) {
    partial = carver.take<float4>(4 * expert_warps * warp_lanes);
  }
};

// The fragments of one row (null: zeros) of x for a chunk.
__device__ inline void load_row(const Bf16* row, int32_t chunk, int32_t tiles, RowFragments& b) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int tile = 0; tile < chunk_tiles; ++tile) {
    const int32_t at = chunk * chunk_tiles + tile;
    const bool valid = row && at < tiles;
    const auto* from = reinterpret_cast<const Pair*>(row + at * tile_columns) + t;
#pragma unroll
    for (int i = 0; i < 8; ++i) b[tile][i] = valid ? __ldcg(from + 4 * i) : 0;
  }
}

// A block's units, their chunks in the order in which a warp meets them.
template <PackedFormat format>
class GateUpStream {
 public:
  __device__ GateUpStream(const ExpertsTask& task, ChunkRing<format>& ring, int warp)
      : task_(task), matrices_(task.gate_up), ring_(ring), warp_(warp) {
    if (warp < matrices_.chunks)
      chunks_ = (matrices_.chunks - warp + expert_warps - 1) / expert_warps;
  }

  __device__ int32_t chunks() const { return chunks_; }  // of this warp, a unit
  __device__ bool has(int32_t i) const { return i < end_; }
  // The warp's i-th chunk of a unit, counted in the matrix.
  __device__ int32_t chunk(int32_t i) const { return i * expert_warps + warp_; }
  // The i-th unit's strip and group.
  __device__ Unit unit(int32_t i) const { return unit_at(share_.index(i), matrices_); }
  __device__ int32_t groups() const { return groups_; }

  // The shared expert's units, of which nothing has to be known.
  __device__ void take_shared() {
    share_ = UnitShare(task_.shared_groups(), matrices_.strips);
    end_ = share_.count;
  }
  // All of them, now that they are listed.
  __device__ void take_all() {
    groups_ = *task_.groups.count;
    share_.add_others(groups_, matrices_.strips);
    end_ = share_.count;
    complete_ = true;
  }
  // Issues what the ring has room for. In one place of the code: instructions have to be fetched.
  __device__ void fill() {
#pragma unroll 1
    while (issued_ < read_ + ring_.depth && (complete_ || has_next())) {
      if (has_next())
        issue();
      else
        ring_.issue_nothing();
      ++issued_;
    }
  }
  __device__ const std::byte* wait(float4& scale) {
    // While the others are not listed nothing is issued behind the shared expert's last chunks.
    const bool full = issued_ - read_ == ring_.depth;
    ++read_;
    return ring_.wait(scale, full);
  }

 private:
  __device__ bool has_next() const {
    return chunks_ > 0 && has(next_unit_);
  }
  __device__ void issue() {
    if (next_chunk_ == 0) {
      next_ = unit_at(share_.index(next_unit_), matrices_);
      const short2 expert = experts_.move_to(next_.group, groups_,
                                             [&](int32_t group) { return task_.expert_of(group); });
      next_.expert = expert.x;
      next_.again = expert.y != 0;
    }
    matrices_.issue(ring_, next_.expert, next_.strip, chunk(next_chunk_), next_.again);
    if (++next_chunk_ == chunks_) {
      next_chunk_ = 0;
      ++next_unit_;
    }
  }

  const ExpertsTask& task_;
  const ExpertMatrices& matrices_;
  ChunkRing<format>& ring_;
  int32_t warp_;
  int32_t chunks_ = 0;
  int32_t end_ = 0;
  int32_t groups_ = 0;
  UnitShare share_;
  GroupCursor<short2> experts_;
  bool complete_ = false;
  int32_t issued_ = 0, read_ = 0, next_unit_ = 0, next_chunk_ = 0;
  Unit next_{};
};

// One warp: adds the warps' sums in order and stores act, of this lane's pairs (-1: of none).
__device__ inline void store_act(const ExpertsTask& task, int32_t unit_strip, int32_t strips,
                                 const float4* partial, const int32_t (&pairs)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int g = lane / 4;
  float4 sum = partial[lane];
#pragma unroll
  for (int i = 1; i < expert_warps; ++i) {
    const float4 other = partial[i * warp_lanes + lane];
    sum.x += other.x;
    sum.y += other.y;
    sum.z += other.z;
    sum.w += other.w;
  }
  const float value[2] = {silu(sum.x) * sum.z, silu(sum.y) * sum.w};
  // Columns that pad the last tile are zeros, not what lay there.
  const int32_t end = unit_strip == strips - 1 ? (strips + 7) / 8 * 8 : unit_strip + 1;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (pairs[i] < 0) continue;
    Bf16* row = task.act + pairs[i] * task.act_stride;
    row[act_place(unit_strip, g)] = __bfloat16_as_ushort(__float2bfloat16_rn(value[i]));
#pragma unroll 1
    for (int32_t strip = unit_strip + 1; strip < end; ++strip) row[act_place(strip, g)] = 0;
  }
}

// Two rounds, one before the wait and one behind it: a block multiplies its share of the shared
// expert while the kernel before this one lists the others. Its rows are there, and nobody reads
// act any more: both are the business of kernels that had ended when the listing let this one
// start.
template <PackedFormat format>
__global__ void __launch_bounds__(expert_threads, 2)
    gate_up_kernel(const __grid_constant__ ExpertsTask task) {
  extern __shared__ __align__(128) std::byte bytes[];
  Carver carver(bytes);
  const GateUpMemory<format> memory(carver, task);
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  ChunkRing<format> ring(memory.rings[warp]);
  GateUpStream<format> stream(task, ring, warp);
  RowFragments b;
  GroupCursor<LanePairs> groups;
  const Bf16* row = nullptr;
  int32_t loaded_group = -1;
  int32_t i = 0, half = 0, buffer = 0;
  int32_t merged_strip = 0, merged_pairs[2] = {-1, -1};
#pragma unroll 1
  for (int round = 0; round < 2; ++round) {
    if (round == 0) {
      stream.take_shared();
    } else {
      wait_for_earlier_kernels();
      let_next_kernel_start();
      stream.take_all();
    }
    stream.fill();
#pragma unroll 1
    for (; stream.has(i); ++i) {
      const Unit unit = stream.unit(i);
      bool reload = stream.chunks() > 1;
      const LanePairs& pairs = groups.move_to(
          unit.group, stream.groups(), [&](int32_t group) { return task.lane_pairs(group); });
      if (unit.group != loaded_group) {
        row = pairs.row < 0 ? nullptr : task.normed + pairs.row / task.slots * task.normed_stride;
        loaded_group = unit.group;
        reload = true;
      }
      float sum[4] = {};
#pragma unroll 1
      for (int32_t j = 0; j < stream.chunks(); ++j) {
        const int32_t chunk = stream.chunk(j);
        if (reload) load_row(row, chunk, task.gate_up.column_tiles, b);
        float4 scale;
        const std::byte* data = stream.wait(scale);
        add_chunk<format>(data, task.gate_up.tiles_of(chunk), scale, b, sum);
        stream.fill();
      }
      // Two units a barrier, so that warps seldom wait for each other. One has merged a pair before
      // it comes to the barrier of the next pair, behind which its sums are overwritten.
      float4* partial = memory.partial + (2 * buffer + half) * expert_warps * warp_lanes;
      partial[warp * warp_lanes + lane] = {sum[0], sum[1], sum[2], sum[3]};
      const bool mine = warp == i % expert_warps;
      if (mine) {
        merged_strip = unit.strip;
        merged_pairs[0] = pairs.out[0];
        merged_pairs[1] = pairs.out[1];
      }
      if (half == 0 && stream.has(i + 1)) {
        half = 1;
        continue;
      }
      __syncthreads();
      if (mine || (half == 1 && warp == (i - 1) % expert_warps))
        store_act(task, merged_strip, task.gate_up.strips,
                  mine ? partial : partial - expert_warps * warp_lanes, merged_pairs);
      half = 0;
      buffer ^= 1;
    }
  }
}

}  // namespace qnext::ops::cuda
