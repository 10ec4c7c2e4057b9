// x += sum over slots of weight_s * down_e act_s for one row, in the manner of
// stream_row_gate_up.cuh. A block owns a strip of 16 outputs: a piece is that strip of one expert,
// and all are on their way before act is there. Warps take half chunks, all experts' behind each
// other. Sums have the order of stream_down.cuh.
#pragma once

#include "ops/moe/stream_row_gate_up.cuh"

namespace qnext::ops::cuda {

// Gate and up's copies are wanted first: so many of a block's pieces are asked for at once, the
// others so much later (f8, 24 layers of the 80B: none, 2,000, 4,000, 6,000 and 8,000 cycles:
// 1,085, 1,093, 1,101, 1,086 and 1,065 tokens/s). At 4.5 bits 4 pieces and 4,000 cycles cost 5 %,
// 8 and 2,000 gain half a percent.
template <PackedFormat format>
constexpr int32_t early_pieces = format == PackedFormat::q4 ? 8 : 4;
template <PackedFormat format>
constexpr int cycles_behind_early = format == PackedFormat::q4 ? 2000 : 4000;

template <PackedFormat format>
struct RowDownMemory {
  static constexpr int half_bytes = half_tiles * static_cast<int>(tile_bytes(format));
  static constexpr bool scaled = format == PackedFormat::f8;

  // By pieces: the shared expert's, the last slot's, comes first.
  std::byte* data;  // [slots][halves * half_bytes]
  float2* scale;    // f8: [slots][halves]: of each half's upper and lower rows
  std::byte* act;   // bf16 [slots][act_stride]
  float* partial;   // [slots][halves of a strip][tile_rows]
  // By slots.
  float* sums;  // [slots][tile_rows]
  RouteScratch* scratch;
  int32_t* ids;         // [slots]
  float* weights;       // [slots]
  sm90::Barrier* full;  // [slots]

  __host__ __device__ RowDownMemory(Carver& carver, const ExpertsTask& task) {
    const int64_t slots = task.slots, halves = halves_of(task);
    data = carver.take<std::byte>(slots * halves * half_bytes);
    scale = carver.take<float2>(scaled ? slots * halves : 0);
    act = carver.take<std::byte>(slots * task.act_stride * static_cast<int64_t>(sizeof(Bf16)));
    partial = carver.take<float>(slots * halves * tile_rows);
    sums = carver.take<float>(slots * tile_rows);
    scratch = carver.take<RouteScratch>(1);
    ids = carver.take<int32_t>(slots);
    weights = carver.take<float>(slots);
    full = carver.take<sm90::Barrier>(slots);
  }
  static __host__ __device__ int32_t halves_of(const ExpertsTask& task) {
    return task.down.column_tiles / half_tiles;
  }
  // Whole chunks.
  static bool takes(const ExpertsTask& task) {
    return task.down.column_tiles % chunk_tiles == 0 && task.slots <= row_expert_threads;
  }
};

template <PackedFormat format>
__global__ void __launch_bounds__(row_expert_threads, 2)
    row_down_kernel(const __grid_constant__ ExpertsTask task) {
  using Memory = RowDownMemory<format>;
  // The next layer's projections may take the place of gate and up's blocks as these end.
  let_next_kernel_start();
  extern __shared__ __align__(128) std::byte bytes[];
  __shared__ ChoosingKeys choosing_keys;
  Carver carver(bytes);
  const Memory memory(carver, task);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  const ExpertMatrices& shape = task.down;
  const Routing& routing = task.routing;
  const RouteRule rule = rule_of(routing);
  const auto strip = static_cast<int32_t>(blockIdx.x);
  const auto shared = int32_t{routing.shared};
  const int32_t halves = Memory::halves_of(task);
  if (thread < task.slots) {
    sm90::set_up(memory.full + thread, 1);
    sm90::publish_barriers();
  }
  // The router's logits are there: gate and up let this kernel start behind their wait for them.
  const float gate = warp == 0 ? shared_logit(rule, routing.shared_gate) : 0.0f;
  const float largest = choose_together(ChoosingBlock{choosing_keys}, rule, routing.logits,
                                        *memory.scratch, memory.ids, memory.weights);
  __syncthreads();
  if (lane == 0) {
    if (warp >= early_pieces<format>) let_pass(cycles_behind_early<format>);
#pragma unroll 1
    for (int32_t piece = warp; piece < task.slots; piece += row_expert_warps) {
      const int32_t expert = piece < shared ? task.experts - 1 : memory.ids[piece - shared];
      const auto data_bytes = static_cast<uint32_t>(shape.strip_bytes);
      const uint32_t scale_bytes =
          Memory::scaled ? static_cast<uint32_t>(halves) * sizeof(float2) : 0;
      sm90::Barrier* const full = memory.full + piece;
      sm90::arrive_expecting(full, data_bytes + scale_bytes);
      sm90::bulk_copy_once(
          memory.data + piece * halves * Memory::half_bytes,
          shape.tiles + expert * shape.expert_bytes + int64_t{strip} * shape.strip_bytes,
          data_bytes, full);
      if constexpr (Memory::scaled)
        sm90::bulk_copy_once(
            memory.scale + piece * halves,
            shape.scales + expert * shape.expert_scales + strip * shape.strip_scales, scale_bytes,
            full);
    }
  }
  __syncwarp();
  if (warp == 0) finish_row(rule, routing.logits, gate, largest, memory.ids, memory.weights);
  const bool adds = thread < tile_rows && strip * tile_rows + thread < task.hidden;
  const int column = lane % static_cast<int>(tile_rows);
  float* const x = task.x + strip * tile_rows + column;

  wait_for_earlier_kernels();
  const float residual = adds ? __ldcg(x) : 0.0f;
  const auto sixteens = static_cast<int32_t>(task.act_stride / 8), all = task.slots * sixteens;
#pragma unroll 2
  for (int32_t at = thread; at < all; at += row_expert_threads) {
    const int32_t place = at + shared * sixteens;
    reinterpret_cast<uint4*>(memory.act)[place < all ? place : place - all] =
        __ldcg(reinterpret_cast<const uint4*>(task.act) + at);
  }
  __syncthreads();
  // Everything a half needs lies at its number.
#pragma unroll 1
  for (int32_t half = warp; half < task.slots * halves; half += row_expert_warps) {
    Pair b[half_tiles][8];
#pragma unroll
    for (int i = 0; i < half_tiles; ++i) load_fragments(memory.act, half * half_tiles + i, b[i]);
    sm90::wait(memory.full + shape.by_chunks.divide(half / 2), 0);
    const float2 sum = half_sum<format>(memory.data + half * Memory::half_bytes, b,
                                        Memory::scaled ? memory.scale[half] : float2{});
    if (lane % 4 == 0) {
      float* to = memory.partial + half * tile_rows + lane / 4;
      to[0] = sum.x;
      to[8] = sum.y;
    }
  }
  __syncthreads();
  // Each slot's chunks, then the slots.
#pragma unroll 1
  for (int32_t at = thread; at < task.slots * tile_rows; at += row_expert_threads) {
    const auto piece = static_cast<int32_t>(at / tile_rows);
    const float* from = memory.partial + piece * halves * tile_rows + column;
    float sum = 0;
#pragma unroll 2
    for (int32_t i = 0; i < halves; i += 2) sum += from[i * tile_rows] + from[(i + 1) * tile_rows];
    memory.sums[(piece < shared ? task.slots - 1 : piece - shared) * tile_rows + column] = sum;
  }
  __syncthreads();
  if (!adds) return;
  float total = 0;
#pragma unroll 4
  for (int32_t i = 0; i < task.slots; ++i)
    total = fmaf(memory.weights[i], memory.sums[i * tile_rows + column], total);
  *x = residual + total;
}

}  // namespace qnext::ops::cuda
