// x += sum over slots of weight_s * down_e act_s for a few rows. A block owns a strip of 16 outputs
// and goes through it in all chosen experts, for all rows at once: a chunk of four tiles is one
// warp's, who has a ring of its own (expert_chunks.cuh), filled before act is there. Sums have the
// order of stream_down.cuh.
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/moe/few_choice.cuh"
#include "ops/moe/stream_row_gate_up.cuh"

namespace qnext::ops::cuda {

constexpr int few_down_warps = 8;
constexpr int few_down_threads = few_down_warps * warp_lanes;
static_assert(most_few_rows * FewWarps::threads <= few_down_threads &&
              few_columns * tile_rows <= few_down_threads);

template <PackedFormat format>
struct FewDownMemory {
  using Ring = ChunkRing<format>;
  typename Ring::Memory* rings;  // [few_down_warps]
  std::byte* act;                // bf16 [pairs], act_bytes() apart
  float* parts;                  // [pairs][tile_rows]
  FewChoice choice;

  __host__ __device__ FewDownMemory(Carver& carver, const ExpertsTask& task)
      : rings(carver.take<typename Ring::Memory>(few_down_warps)),
        act(carver.take<std::byte>(task.pairs() * int64_t{act_bytes(task)})),
        parts(carver.take<float>(int64_t{task.pairs()} * tile_rows)),
        choice(carver, task, rings) {
    static_assert(sizeof(Ring::Memory::data) >= few_columns * sizeof(RouteScratch));
  }
  // + 16: two rows share no banks.
  static __host__ __device__ int32_t act_bytes(const ExpertsTask& task) {
    return task.down.column_tiles * 128 + 16;
  }
};

// A warp: the rows of act that its experts want, which no other warp needs.
template <PackedFormat format>
__device__ inline void fetch_act(const ExpertsTask& task, const FewDownMemory<format>& memory,
                                 int32_t experts) {
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int32_t sixteens = task.down.column_tiles * 8, act_bytes = memory.act_bytes(task);
#pragma unroll 1
  for (int32_t expert = warp; expert < experts; expert += few_down_warps) {
    const char4 slots = *reinterpret_cast<const char4*>(memory.choice.slot + expert * few_columns);
    static_assert(most_few_rows == 4);
    const int slot[most_few_rows] = {slots.x, slots.y, slots.z, slots.w};
#pragma unroll
    for (int row = 0; row < most_few_rows; ++row) {
      if (slot[row] < 0) continue;
      const int32_t pair = row * task.slots + slot[row];
#pragma unroll 1
      for (int32_t i = lane; i < sixteens; i += warp_lanes)
        sm90::copy_sixteen(memory.act + pair * act_bytes + 16 * i,
                           reinterpret_cast<const uint4*>(task.act + pair * task.act_stride) + i);
    }
  }
  sm90::close_copies();
  sm90::wait_for_copies<0>();
  __syncwarp();
}

// Registers and shared memory: see few_gate_up_kernel().
template <PackedFormat format>
__global__ void __maxnreg__(96) few_down_kernel(const __grid_constant__ ExpertsTask task) {
  // The next layer's kernels may take the place of gate and up's blocks as these end.
  let_next_kernel_start();
  extern __shared__ __align__(128) std::byte bytes[];
  Carver carver(bytes);
  const FewDownMemory<format> memory(carver, task);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  const ExpertMatrices& shape = task.down;
  const FewChoice& choice = memory.choice;
  const auto strip = static_cast<int32_t>(blockIdx.x);
  ChunkRing<format> ring(memory.rings[warp]);
  clear_choice(task, choice);
  __syncthreads();
  // The warp's experts, every few_down_warps-th of the chosen ones: their chunks in turn.
  int32_t count = 0;
  int32_t coming = warp, coming_chunk = 0;
  const auto issue_next = [&] {
    if (coming >= count) {
      ring.issue_nothing();
      return;
    }
    shape.issue(ring, choice.expert[coming], strip, coming_chunk, false);
    if (++coming_chunk < shape.chunks) return;
    coming_chunk = 0;
    coming += few_down_warps;
  };
  const int32_t row = thread / static_cast<int32_t>(tile_rows),
                output = thread % static_cast<int32_t>(tile_rows);
  const bool adds = row < task.rows;
  float* const x = task.x + row * task.x_stride + strip * tile_rows + output;
  const int32_t act_bytes = memory.act_bytes(task);
  float largest = 0;
  const int routed_row = warp / 2;
  const bool routes = routed_row < task.rows;
  if (routes) {
    FewLogits logits;
    load_few_logits(task, choice, routed_row, logits);
    largest = choose_few(task, choice, routed_row, logits);
    // Copies overwrite its scratch.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  count = *choice.count;
#pragma unroll 1
  for (int i = 0; i < ring.depth; ++i) issue_next();
  if (routes && warp % 2 == 0) finish_few(task, choice, routed_row, largest);
  wait_for_earlier_kernels();
  const float residual = adds ? __ldcg(x) : 0.0f;
  fetch_act(task, memory, count);
#pragma unroll 1
  for (int32_t expert = warp; expert < count; expert += few_down_warps) {
    const int8_t* const slots = choice.slot + expert * few_columns;
    const int of = lane / 4, slot = slots[of];
    const std::byte* const from = memory.act + (of * task.slots + slot) * act_bytes;
    float sum[4] = {};
#pragma unroll 1
    for (int32_t chunk = 0; chunk < shape.chunks; ++chunk) {
      float4 scale;
      const std::byte* data = ring.wait(scale);
      RowFragments b;
      float of_chunk[4];
      few_chunk_sum<format, false>(data, scale, b, of_chunk, [&] {
        issue_next();
#pragma unroll
        for (int i = 0; i < chunk_tiles; ++i) {
#pragma unroll
          for (int j = 0; j < 8; ++j) b[i][j] = 0;
          if (slot >= 0) load_fragments(from, chunk * chunk_tiles + i, b[i]);
        }
      });
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] += of_chunk[i];
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row_of_sum = lane % 4 * 2 + i, slot_of_sum = slots[row_of_sum];
      if (slot_of_sum < 0) continue;
      float* to = memory.parts + (row_of_sum * task.slots + slot_of_sum) * tile_rows + lane / 4;
      to[0] = sum[i];
      to[8] = sum[i + 2];
    }
  }
  __syncthreads();
  if (!adds) return;
  const float* part = memory.parts + row * task.slots * tile_rows + output;
  const float* weight = choice.weights + row * task.slots;
  float total = 0;
#pragma unroll 4
  for (int32_t slot = 0; slot < task.slots; ++slot)
    total = fmaf(weight[slot], part[slot * tile_rows], total);
  *x = residual + total;
}

}  // namespace qnext::ops::cuda
