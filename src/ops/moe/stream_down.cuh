// x += sum over slots of weight * down act.
//
// A pair's value is the sum of its chunks (256 columns of act) in ascending order; a row adds its
// slots in order. A warp takes whole strips of one expert, for up to 8 pairs, and a kernel of its
// own adds the slots. (One row: stream_row_down.cuh.)
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/matmul/stream_rows.cuh"
#include "ops/moe/stream_experts_task.cuh"

namespace qnext::ops::cuda {

// A lane's fragments of a row of act (null: zeros).
__device__ inline void load_act(const Bf16* row, int32_t chunk, int32_t tiles, RowFragments& b) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int tile = 0; tile < chunk_tiles; ++tile) {
    const int32_t at = chunk * chunk_tiles + tile;
    uint4 words[2] = {};
    if (row && at < tiles) {
      const auto* from = reinterpret_cast<const uint4*>(row + at * tile_columns + 16 * t);
      words[0] = __ldcg(from);
      words[1] = __ldcg(from + 1);
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

constexpr int kept_chunks = 2;  // of act, in registers: a width of 512

template <PackedFormat format>
__global__ void __launch_bounds__(expert_threads, 2)
    down_parts_kernel(const __grid_constant__ ExpertsTask task) {
  extern __shared__ __align__(128) std::byte bytes[];
  Carver carver(bytes);
  const CommonMemory<format> memory(carver, task);
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int g = lane / 4;
  const ExpertMatrices& shape = task.down;
  ChunkRing<format> ring(memory.rings[warp]);
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
        for (int j = 0; j < kept_chunks; ++j) load_act(act, first + j, shape.column_tiles, b[j]);
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

constexpr int parts_at_once = 12;  // of a value's slots, on their way together

__global__ void __launch_bounds__(expert_threads)
    add_parts_kernel(const __grid_constant__ ExpertsTask task) {
  wait_for_earlier_kernels();
  let_next_kernel_start();
  const int64_t hidden = task.hidden;
  const int64_t row = blockIdx.y;
  const int64_t output = static_cast<int64_t>(blockIdx.x) * expert_threads + threadIdx.x;
  if (output >= hidden) return;
  const float* part = task.parts + row * task.slots * hidden + output;
  const float* weight = task.routing.weights + row * task.slots;
  float* const x = task.x + row * task.x_stride + output;
  const float residual = *x;
  float total = 0;
  for (int32_t first = 0; first < task.slots; first += parts_at_once) {
    float parts[parts_at_once], weights[parts_at_once];
#pragma unroll
    for (int i = 0; i < parts_at_once; ++i) {
      const bool valid = first + i < task.slots;
      parts[i] = valid ? __ldcg(part + (first + i) * hidden) : 0.0f;
      weights[i] = valid ? __ldcg(weight + first + i) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < parts_at_once; ++i)
      if (first + i < task.slots) total = fmaf(weights[i], parts[i], total);
  }
  *x = residual + total;
}

// The same and the norm of what comes out: a block a row of up to 2048 columns, a thread four of
// them. Half of the threads sum the squares, in the order of row_norm.cuh.
constexpr int norm_threads = 2 * norm_floats;
__global__ void __launch_bounds__(norm_threads)
    add_parts_and_norm_kernel(const __grid_constant__ ExpertsTask task) {
  __shared__ float4 second[norm_floats];
  __shared__ float sums[norm_runs][warp_lanes];
  const auto thread = static_cast<int32_t>(threadIdx.x), summing = norm_threads / 2;
  const int lane = thread % warp_lanes;
  const int32_t fours = task.hidden / 4;
  const int64_t row = blockIdx.x;
  const bool valid = thread < fours;
  float4 norm_weight{}, value{};
  if (valid) norm_weight = reinterpret_cast<const float4*>(task.next.weight)[thread];
  let_next_kernel_start();
  wait_for_earlier_kernels();
  auto* const x = reinterpret_cast<float4*>(task.x + row * task.x_stride) + thread;
  const auto* const part =
      reinterpret_cast<const float4*>(task.parts) + row * task.slots * fours + thread;
  const float* const weight = task.routing.weights + row * task.slots;
  if (valid) {
    value = *x;
    float4 total{};
#pragma unroll 1
    for (int32_t first = 0; first < task.slots; first += parts_at_once) {
      float4 parts[parts_at_once];
      float weights[parts_at_once];
#pragma unroll
      for (int i = 0; i < parts_at_once; ++i) {
        const bool there = first + i < task.slots;
        parts[i] = there ? __ldcg(part + (first + i) * fours) : float4{};
        weights[i] = there ? __ldcg(weight + first + i) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < parts_at_once; ++i) {
        if (first + i >= task.slots) break;
        total.x = fmaf(weights[i], parts[i].x, total.x);
        total.y = fmaf(weights[i], parts[i].y, total.y);
        total.z = fmaf(weights[i], parts[i].z, total.z);
        total.w = fmaf(weights[i], parts[i].w, total.w);
      }
    }
    value = {value.x + total.x, value.y + total.y, value.z + total.z, value.w + total.w};
    *x = value;
  }
  if (thread >= summing) second[thread - summing] = value;
  __syncthreads();
  if (thread < summing) {
    float sum = 0;
    add_squares(sum, value);
    add_squares(sum, second[thread]);
    sums[thread / warp_lanes][lane] = sum;
  }
  __syncthreads();
  const float scale = shared_norm_scale(sums[0], task.hidden, task.next.eps);
  if (!valid) return;
  reinterpret_cast<uint2*>(task.next.y + row * task.next.stride)[thread] =
      normed_pairs(value, scale, norm_weight);
}

}  // namespace qnext::ops::cuda
