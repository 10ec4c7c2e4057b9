// x += sum over slots of weight * down act.
//
// A pair's value is the sum of its chunks (256 columns of act) in ascending order; a row adds its
// slots in order. One row: a block owns a strip of 16 outputs, its warps take the (expert, chunk)
// combinations in turn, and the chunks' sums meet in shared memory. More rows: a warp takes whole
// strips of one expert, for up to 8 pairs, and a kernel of its own adds the slots.
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/moe/stream_experts_task.cuh"

namespace qnext::ops::cuda {

// act rows are brought to shared memory at once where they take no more than this: the chunks'
// loads then cost no trip to L2 each, which counts while there is little else to wait for.
constexpr int64_t staged_bytes = 12 << 10;

// A lane's fragments of a row of act (null: zeros).
__device__ inline void load_act(const Bf16* row, bool in_shared, int32_t chunk, int32_t tiles,
                                RowFragments& b) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int tile = 0; tile < chunk_tiles; ++tile) {
    const int32_t at = chunk * chunk_tiles + tile;
    uint4 words[2] = {};
    if (row && at < tiles) {
      const auto* from = reinterpret_cast<const uint4*>(row + at * tile_columns + 16 * t);
      words[0] = in_shared ? from[0] : __ldcg(from);
      words[1] = in_shared ? from[1] : __ldcg(from + 1);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      b[tile][4 * i] = words[i].x;
      b[tile][4 * i + 1] = words[i].y;
      b[tile][4 * i + 2] = words[i].z;
      b[tile][4 * i + 3] = words[i].w;
    }
  }
}

// --- one row -------------------------------------------------------------------------------------

template <PackedFormat format>
struct DownMemory : CommonMemory<format, true> {
  float* partial;  // [pairs][chunks][tile_rows]
  Bf16* act;       // [pairs][act_stride], if staged

  __host__ __device__ DownMemory(Carver& carver, const ExpertsTask& task)
      : CommonMemory<format, true>(carver, task) {
    partial = carver.take<float>(task.pairs() * int64_t{task.down.chunks} * tile_rows);
    act = carver.take<Bf16>(staged(task) ? task.pairs() * task.act_stride : 0);
  }
  static __host__ __device__ bool staged(const ExpertsTask& task) {
    return task.pairs() * task.act_stride * static_cast<int64_t>(sizeof(Bf16)) <= staged_bytes;
  }
};

template <PackedFormat format>
__global__ void __launch_bounds__(expert_threads, 2)
    down_kernel(const __grid_constant__ ExpertsTask task) {
  extern __shared__ __align__(128) std::byte bytes[];
  Carver carver(bytes);
  DownMemory<format> memory(carver, task);
  const auto thread = static_cast<int>(threadIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  const int g = lane / 4, t = lane % 4;
  const auto strip = static_cast<int32_t>(blockIdx.x);
  const ExpertMatrices& shape = task.down;
  const bool shared = task.routing.shared;
  ChunkRing<format, true> ring(memory.rings[warp]);

  // Chunk q is chunk q % chunks of the (q / chunks)-th expert in the order of visits.
  int32_t issued = 0, next = warp;
#pragma unroll 1
  for (; shared && issued < ring.depth && next < shape.chunks; ++issued, next += expert_warps)
    shape.issue(ring, task.experts - 1, strip, next, false);
  route_here(task, memory);
  const SlotUnits& units = memory.units;
  const int32_t count = units.groups * shape.chunks;
  const auto issue_next = [&] {
    if (next < count) {
      const int32_t expert = shape.by_chunks.divide(next);
      shape.issue(ring, units.expert[expert], strip, next - expert * shape.chunks, false);
    } else {
      ring.issue_nothing();
    }
    next += expert_warps;
  };
#pragma unroll 1
  for (; issued < ring.depth; ++issued) issue_next();

  const bool adds = thread < tile_rows && strip * tile_rows + thread < task.hidden;
  float* x = task.x + strip * tile_rows + thread;
  const bool staged = memory.staged(task);
  const Bf16* act = staged ? memory.act : task.act;
  // First a rehearsal, as in gate_up_kernel(): with whatever act and x hold now.
#pragma unroll 1
  for (int round = 0; round < 2; ++round) {
    const bool rehearsal = round == 0;
    if (!rehearsal) {
      wait_for_earlier_kernels();
      let_next_kernel_start();
    }
    const float residual = adds ? __ldcg(x) : 0.0f;
    if (staged) {
      const auto* from = reinterpret_cast<const uint4*>(task.act);
      auto* to = reinterpret_cast<uint4*>(memory.act);
      const auto sixteens = static_cast<int32_t>(task.pairs() * task.act_stride / 8);
#pragma unroll 4
      for (int32_t at = thread; at < sixteens; at += expert_threads) to[at] = __ldcg(from + at);
      __syncthreads();
    }
    const int32_t end = rehearsal ? min(count, warp + 1) : count;
#pragma unroll 1
    for (int32_t q = warp; q < end; q += expert_warps) {
      const int32_t expert = shape.by_chunks.divide(q), chunk = q - expert * shape.chunks;
      const int32_t slot = units.slot[expert];
      RowFragments b;
      load_act(g == 0 ? act + slot * task.act_stride : nullptr, staged, chunk, shape.column_tiles,
               b);
      float4 scale{};
      const std::byte* data = rehearsal ? memory.rings[warp].data[0] : ring.wait(scale);
      float sum[4] = {};
      add_chunk<format>(data, shape.tiles_of(chunk), scale, b, sum);
      if (!rehearsal) issue_next();
      if (t == 0) {
        float* to = memory.partial + (slot * shape.chunks + chunk) * tile_rows + g;
        to[0] = sum[0];
        to[8] = sum[2];
      }
    }
    __syncthreads();
    // Each pair's chunks, in place of the first; then the pairs.
    for (int32_t at = thread; at < task.slots * tile_rows; at += expert_threads) {
      const auto pair = static_cast<int32_t>(at / tile_rows);
      const auto i = static_cast<int32_t>(at % tile_rows);
      float* sums = memory.partial + pair * shape.chunks * tile_rows + i;
      float sum = 0;
#pragma unroll 4
      for (int32_t chunk = 0; chunk < shape.chunks; ++chunk) sum += sums[chunk * tile_rows];
      *sums = sum;
    }
    __syncthreads();
    float total = 0;
#pragma unroll 8
    for (int32_t slot = 0; slot < task.slots; ++slot)
      total = fmaf(memory.weights[slot],
                   memory.partial[slot * shape.chunks * tile_rows + thread % tile_rows], total);
    if (adds && !rehearsal) *x = residual + total;
    __syncthreads();
  }
}

// --- more rows ---------------------------------------------------------------------------------

constexpr int kept_chunks = 2;  // of act, in registers: a width of 512

template <PackedFormat format>
__global__ void __launch_bounds__(expert_threads, 2)
    down_parts_kernel(const __grid_constant__ ExpertsTask task) {
  extern __shared__ __align__(128) std::byte bytes[];
  Carver carver(bytes);
  CommonMemory<format, false> memory(carver, task);
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int g = lane / 4;
  const ExpertMatrices& shape = task.down;
  ChunkRing<format, false> ring(memory.rings[warp]);
  // gate_up_kernel let this one start once the lists were there.
  const int32_t groups = *task.groups.count;
  UnitShare share(task.shared_groups(), shape.strips);
  share.add_others(groups, shape.strips);

  // The block's units in turn among its warps.
  GroupCursor<short2> experts;
  int32_t next = warp, next_chunk = 0;
  Unit next_unit{};
  const auto issue_next = [&] {
    if (next >= share.count) {
      ring.issue_nothing();
      return;
    }
    if (next_chunk == 0) {
      next_unit = unit_at(share.index(next), shape);
      const short2 expert = experts.move_to(next_unit.group, groups,
                                            [&](int32_t group) { return task.expert_of(group); });
      next_unit.expert = expert.x;
      next_unit.again = expert.y != 0;
    }
    shape.issue(ring, next_unit.expert, next_unit.strip, next_chunk, next_unit.again);
    if (++next_chunk == shape.chunks) {
      next_chunk = 0;
      next += expert_warps;
    }
  };
#pragma unroll 1
  for (int i = 0; i < ring.depth; ++i) issue_next();
  wait_for_earlier_kernels();
  let_next_kernel_start();

  RowFragments b[kept_chunks];
  int32_t loaded_group = -1;
  GroupCursor<LanePairs> columns;
  for (int32_t i = warp; i < share.count; i += expert_warps) {
    const Unit unit = unit_at(share.index(i), shape);
    const LanePairs& pairs =
        columns.move_to(unit.group, groups, [&](int32_t group) { return task.lane_pairs(group); });
    const bool reload = unit.group != loaded_group || shape.chunks > kept_chunks;
    loaded_group = unit.group;
    const Bf16* act = pairs.row < 0 ? nullptr : task.act + pairs.row * task.act_stride;
    float sum[4] = {};
    for (int32_t first = 0; first < shape.chunks; first += kept_chunks) {
      if (reload) {
#pragma unroll
        for (int j = 0; j < kept_chunks; ++j)
          load_act(act, false, first + j, shape.column_tiles, b[j]);
      }
#pragma unroll
      for (int j = 0; j < kept_chunks; ++j) {
        if (first + j >= shape.chunks) break;
        float4 scale;
        const std::byte* data = ring.wait(scale);
        add_chunk<format>(data, shape.tiles_of(first + j), scale, b[j], sum);
        issue_next();
      }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int32_t pair = pairs.out[j % 2];
      const int64_t output = unit.strip * tile_rows + g + j / 2 * 8;
      if (pair >= 0 && output < task.hidden)
        task.parts[pair * int64_t{task.hidden} + output] = sum[j];
    }
  }
}

__global__ void __launch_bounds__(expert_threads)
    add_parts_kernel(const __grid_constant__ ExpertsTask task) {
  wait_for_earlier_kernels();
  let_next_kernel_start();
  constexpr int at_once = 12;  // slots whose parts are on their way together
  const int64_t hidden = task.hidden;
  const int64_t row = blockIdx.y;
  const int64_t output = static_cast<int64_t>(blockIdx.x) * expert_threads + threadIdx.x;
  if (output >= hidden) return;
  const float* part = task.parts + row * task.slots * hidden + output;
  const float* weight = task.routing.weights + row * task.slots;
  float* const x = task.x + row * task.x_stride + output;
  const float residual = *x;
  float total = 0;
  for (int32_t first = 0; first < task.slots; first += at_once) {
    float parts[at_once], weights[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      const bool valid = first + i < task.slots;
      parts[i] = valid ? __ldcg(part + (first + i) * hidden) : 0.0f;
      weights[i] = valid ? __ldcg(weight + first + i) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i)
      if (first + i < task.slots) total = fmaf(weights[i], parts[i], total);
  }
  *x = residual + total;
}

}  // namespace qnext::ops::cuda
