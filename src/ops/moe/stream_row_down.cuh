// x += sum over slots of weight_s * down_e act_s for one row, in the manner of
// stream_row_gate_up.cuh. A block owns a strip of 16 outputs: a piece is that strip of one expert,
// and as many as fit are on their way before act is there, most of them behind the rehearsal, as
// gate and up's copies are wanted first. Warps take half chunks, all experts'
// behind each other. Sums have the order of stream_down.cuh.
#pragma once

#include "ops/moe/stream_row_gate_up.cuh"

namespace qnext::ops::cuda {

constexpr int32_t early_pieces = 4;  // on their way before the rehearsal

// Two blocks on an SM of 228 KB, a KB each being the system's and some more static.
constexpr size_t row_down_budget = (228 << 10) / 2 - 2048;

template <PackedFormat format>
struct RowDownMemory {
  static constexpr int half_bytes = half_tiles * static_cast<int>(tile_bytes(format));
  static constexpr bool scaled = format == PackedFormat::f8;

  int32_t depth;   // of the ring
  std::byte* act;  // bf16 [slots][act_stride]
  float* partial;  // [slots][halves of a strip][tile_rows]
  float* sums;     // [slots][tile_rows]
  RouteScratch* scratch;
  int32_t* ids;                 // [slots]
  float* weights;               // [slots]
  sm90::Barrier *full, *empty;  // [slots]
  float2* scale;                // f8: [depth][halves]: of each half's upper and lower rows
  std::byte* data;              // [depth][halves * half_bytes]

  __host__ __device__ RowDownMemory(Carver& carver, const ExpertsTask& task) {
    const int64_t slots = task.slots, halves = halves_of(task);
    act = carver.take<std::byte>(slots * task.act_stride * static_cast<int64_t>(sizeof(Bf16)));
    partial = carver.take<float>(slots * halves * tile_rows);
    sums = carver.take<float>(slots * tile_rows);
    scratch = carver.take<RouteScratch>(1);
    ids = carver.take<int32_t>(slots);
    weights = carver.take<float>(slots);
    full = carver.take<sm90::Barrier>(slots);
    empty = carver.take<sm90::Barrier>(slots);
    depth = task.down_depth;
    scale = carver.take<float2>(scaled ? depth * halves : 0);
    data = carver.take<std::byte>(depth * halves * half_bytes);
  }
  static __host__ __device__ int32_t halves_of(const ExpertsTask& task) {
    return (task.down.column_tiles + half_tiles - 1) / half_tiles;
  }
};

template <PackedFormat format>
__global__ void __launch_bounds__(row_expert_threads, 2)
    row_down_kernel(const __grid_constant__ ExpertsTask task) {
  using Memory = RowDownMemory<format>;
  // The next layer's projections may take the place of gate and up's blocks as these end.
  let_next_kernel_start();
  extern __shared__ __align__(128) std::byte bytes[];
  Carver carver(bytes);
  const Memory memory(carver, task);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  const ExpertMatrices& shape = task.down;
  const Routing& routing = task.routing;
  const RouteRule rule{static_cast<int32_t>(routing.experts), static_cast<int32_t>(routing.top_k),
                       routing.renormalize, routing.shared};
  const auto strip = static_cast<int32_t>(blockIdx.x);
  const auto shared = int32_t{routing.shared};
  const int32_t tiles = shape.column_tiles, halves = Memory::halves_of(task);
  // The shared expert's piece, the last slot's, comes first.
  const auto issue = [&](int32_t piece, int32_t slot) {
    const int32_t expert = piece < shared ? task.experts - 1 : memory.ids[piece - shared];
    const auto data_bytes = static_cast<uint32_t>(shape.strip_bytes);
    const uint32_t scale_bytes =
        Memory::scaled ? static_cast<uint32_t>(halves) * sizeof(float2) : 0;
    sm90::arrive_expecting(memory.full + slot, data_bytes + scale_bytes);
    sm90::bulk_copy_once(
        memory.data + slot * halves * Memory::half_bytes,
        shape.tiles + expert * shape.expert_bytes + int64_t{strip} * shape.strip_bytes, data_bytes,
        memory.full + slot);
    if constexpr (Memory::scaled)
      sm90::bulk_copy_once(memory.scale + slot * halves,
                           shape.scales + expert * shape.expert_scales + strip * shape.strip_scales,
                           scale_bytes, memory.full + slot);
  };
  const int32_t early = min(memory.depth, early_pieces);
  // Meanwhile the other warps rehearse, each what does not need the choice.
  if (warp < rehearsing_warps) {
    if (lane == 0) {
#pragma unroll 1
      for (int slot = warp; slot < memory.depth; slot += rehearsing_warps) {
        sm90::set_up(memory.full + slot, 1);
        sm90::set_up(memory.empty + slot, static_cast<uint32_t>(halves));
      }
      sm90::publish_barriers();
    }
    const float gate = warp == 0 ? shared_logit(rule, routing.shared_gate) : 0.0f;
    const ChoosingWarps group;
    const float largest =
        choose_together(group, rule, routing.logits, *memory.scratch, memory.ids, memory.weights);
    __syncwarp();
    if (lane == 0) {
#pragma unroll 1
      for (int32_t piece = warp; piece < early; piece += rehearsing_warps) issue(piece, piece);
    }
    group.meet();
    if (warp == 0) finish_row(rule, routing.logits, gate, largest, memory.ids, memory.weights);
  }
  const bool adds = thread < tile_rows && strip * tile_rows + thread < task.hidden;
  const int column = lane % static_cast<int>(tile_rows);
  float* const x = task.x + strip * tile_rows + column;

#pragma unroll 1
  for (int round = 0; round < 2; ++round) {
    const bool rehearsal = round == 0;
    if (!rehearsal) {
      if (lane == 0) {
#pragma unroll 1
        for (int32_t piece = early + warp; piece < memory.depth; piece += row_expert_warps)
          issue(piece, piece);
      }
      wait_for_earlier_kernels();
    }
    const auto takes_part = [&](RowPart part) { return !rehearsal || rehearsed_part() == part; };
    const float residual = adds ? __ldcg(x) : 0.0f;
    const auto sixteens = static_cast<int32_t>(task.slots * task.act_stride / 8);
#pragma unroll 2
    for (int32_t at = thread; takes_part(RowPart::row) && at < sixteens; at += row_expert_threads)
      reinterpret_cast<uint4*>(memory.act)[at] =
          __ldcg(reinterpret_cast<const uint4*>(task.act) + at);
    if (!rehearsal) __syncthreads();
    const int32_t end = rehearsal ? 1 : task.slots * halves;
    int32_t piece = 0, slot = 0, half = rehearsal ? 0 : warp;
    uint32_t parity = 0;
#pragma unroll 1
    for (int32_t at = half; takes_part(RowPart::products) && at < end;
         at += row_expert_warps, half += row_expert_warps) {
#pragma unroll 1
      while (half >= halves) {
        half -= halves;
        ++piece;
        if (++slot == memory.depth) {
          slot = 0;
          parity ^= 1;
        }
      }
      const int32_t of = piece < shared ? task.slots - 1 : piece - shared;
      Pair b[half_tiles][8];
      const std::byte* row = memory.act + of * task.act_stride * static_cast<int32_t>(sizeof(Bf16));
#pragma unroll
      for (int i = 0; i < half_tiles; ++i)
        load_fragments(row, min(half * half_tiles + i, tiles - 1), b[i]);
      if (!rehearsal) sm90::wait(memory.full + slot, parity);
      const float2 sum = half_sum<format>(
          memory.data + (slot * halves + half) * Memory::half_bytes, b, tiles - half * half_tiles,
          Memory::scaled ? memory.scale[slot * halves + half] : float2{});
      if (lane % 4 == 0) {
        float* to = memory.partial + (of * halves + half) * tile_rows + lane / 4;
        to[0] = sum.x;
        to[8] = sum.y;
      }
      if (!rehearsal && piece + memory.depth < task.slots) {
        __syncwarp();
        if (lane == 0) {
          sm90::arrive(memory.empty + slot);
          if (half == halves - 1) {
            sm90::wait(memory.empty + slot, parity);
            issue(piece + memory.depth, slot);
          }
        }
      }
    }
    if (!rehearsal) __syncthreads();
    // Each slot's chunks, then the slots.
    const bool sums = takes_part(RowPart::sums);
#pragma unroll 1
    for (int32_t at = rehearsal ? column : thread;
         sums && at < (rehearsal ? 1 : task.slots) * tile_rows; at += row_expert_threads) {
      const float* from = memory.partial + at / tile_rows * halves * tile_rows + at % tile_rows;
      float sum = 0;
#pragma unroll 2
      for (int32_t i = 0; i < halves; i += 2)
        sum += from[i * tile_rows] + (i + 1 < halves ? from[(i + 1) * tile_rows] : 0.0f);
      memory.sums[at] = sum;
    }
    if (!rehearsal) __syncthreads();
    if (rehearsal ? sums : adds) {
      float total = 0;
#pragma unroll 4
      for (int32_t i = 0; i < task.slots; ++i)
        total = fmaf(memory.weights[i], memory.sums[i * tile_rows + column], total);
      if (!rehearsal) *x = residual + total;
    }
    if (rehearsal) __syncthreads();
  }
}

}  // namespace qnext::ops::cuda
