// act = silu(gate n) * up n for the experts that a few rows have chosen. A block an SM goes through
// its units (an expert's strip of 8 gate and 8 up rows, for all rows at once); warps have trades,
// so that nobody who multiplies waits for a copy to be queued or for sums to be added:
//
//   8 multiply: a chunk of four tiles each, whose columns of the rows stay in their registers;
//   one queues copies, a strip each;
//   one adds what they leave, in the order of stream_gate_up.cuh, and stores act.
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/moe/few_choice.cuh"
#include "ops/moe/stream_gate_up.cuh"

namespace qnext::ops::cuda {

constexpr int few_queueing_warp = expert_warps, few_adding_warp = expert_warps + 1;
constexpr int few_gate_up_threads = (expert_warps + 2) * warp_lanes;
static_assert(most_few_rows * FewWarps::threads <= expert_warps * warp_lanes);

template <PackedFormat format>
struct FewGateUpMemory {
  static constexpr int chunk_bytes = chunk_tiles * static_cast<int>(tile_bytes(format));
  static constexpr int depth = format == PackedFormat::q4 ? 5 : 3;
  // The last slots of the ring hold the rows until all warps have taken their fragments.
  static constexpr int staging = format == PackedFormat::q4 ? 2 : 1;
  static constexpr int sums = 2;  // units whose sums wait to be added
  static constexpr bool scaled = format == PackedFormat::f8;

  struct alignas(128) Slot {
    std::byte data[expert_warps * chunk_bytes];
    float4 scale[scaled ? expert_warps : 1];  // of each chunk
  };
  Slot* slots;      // [depth]
  float4* partial;  // [sums][expert_warps][warp_lanes]
  FewChoice choice;
  sm90::Barrier *full, *empty;    // [depth]
  sm90::Barrier *summed, *added;  // [sums]

  __host__ __device__ FewGateUpMemory(Carver& carver, const ExpertsTask& task)
      : slots(carver.take<Slot>(depth)),
        partial(carver.take<float4>(sums * expert_warps * warp_lanes)),
        choice(carver, task, carver.take<RouteScratch>(task.rows)),
        full(carver.take<sm90::Barrier>(depth)),
        empty(carver.take<sm90::Barrier>(depth)),
        summed(carver.take<sm90::Barrier>(sums)),
        added(carver.take<sm90::Barrier>(sums)) {}

  // By one thread.
  __device__ void set_up() const {
#pragma unroll 1
    for (int i = 0; i < depth; ++i) {
      sm90::set_up(full + i, 1);
      sm90::set_up(empty + i, expert_warps);
    }
#pragma unroll 1
    for (int i = 0; i < sums; ++i) {
      sm90::set_up(summed + i, expert_warps);
      sm90::set_up(added + i, 1);
    }
    sm90::publish_barriers();
  }
};

// A block's units: every gridDim.x-th.
__device__ inline int32_t few_unit(int32_t i) {
  return static_cast<int32_t>(blockIdx.x + i * gridDim.x);
}

// One thread: a unit's strip and its scales.
template <typename Memory>
__device__ inline void queue_strip(const ExpertsTask& task, const Memory& memory, int32_t expert,
                                   int32_t strip, int slot) {
  const ExpertMatrices& matrices = task.gate_up;
  const auto bytes = static_cast<uint32_t>(matrices.strip_bytes);
  const auto scale_bytes = static_cast<uint32_t>(matrices.strip_scales * sizeof(float));
  sm90::Barrier* const barrier = memory.full + slot;
  sm90::arrive_expecting(barrier, bytes + (Memory::scaled ? scale_bytes : 0));
  sm90::bulk_copy_once(
      memory.slots[slot].data,
      matrices.tiles + expert * matrices.expert_bytes + int64_t{strip} * matrices.strip_bytes,
      bytes, barrier);
  if constexpr (Memory::scaled)
    sm90::bulk_copy_once(
        memory.slots[slot].scale,
        matrices.scales + expert * matrices.expert_scales + strip * matrices.strip_scales,
        scale_bytes, barrier);
}

template <PackedFormat format>
__device__ void multiply_few(const ExpertsTask& task, const FewGateUpMemory<format>& memory,
                             const RowFragments& b, bool halved, int32_t units) {
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const bool works = warp < task.gate_up.chunks;
  sm90::Place slot, sums;
#pragma unroll 1
  for (int32_t i = 0; i < units; ++i) {
    sm90::wait(memory.full + slot.at, slot.parity);
    const auto& from = memory.slots[slot.at];
    const auto read = [&] {
      __syncwarp();
      if (lane == 0) sm90::arrive(memory.empty + slot.at);
    };
    float sum[4] = {};
    if (works) {
      const std::byte* const data = from.data + warp * memory.chunk_bytes;
      const float4 scale = memory.scaled ? from.scale[warp] : float4{};
      if constexpr (format == PackedFormat::f8) {
        if (halved)
          few_chunk_sum<format, true>(data, scale, b, sum, read);
        else
          few_chunk_sum<format, false>(data, scale, b, sum, read);
      } else {
        few_chunk_sum<format, false>(data, scale, b, sum, read);
      }
    } else {
      read();
    }
    sm90::wait(memory.added + sums.at, sums.parity ^ 1);
    memory.partial[(sums.at * expert_warps + warp) * warp_lanes + lane] = {sum[0], sum[1], sum[2],
                                                                           sum[3]};
    __syncwarp();
    if (lane == 0) sm90::arrive(memory.summed + sums.at);
    slot.advance(memory.depth);
    sums.advance(memory.sums);
  }
}

template <PackedFormat format>
__device__ void add_few(const ExpertsTask& task, const FewGateUpMemory<format>& memory,
                        int32_t units) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  sm90::Place sums;
#pragma unroll 1
  for (int32_t i = 0; i < units; ++i) {
    const Unit unit = unit_at(few_unit(i), task.gate_up);
    int32_t pairs[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int row = lane % 4 * 2 + j;
      const int32_t slot = memory.choice.slot[unit.group * few_columns + row];
      pairs[j] = slot < 0 ? -1 : row * task.slots + slot;
    }
    sm90::wait(memory.summed + sums.at, sums.parity);
    store_act(task, unit.strip, task.gate_up.strips,
              memory.partial + sums.at * expert_warps * warp_lanes, pairs);
    __syncwarp();
    if (lane == 0) sm90::arrive(memory.added + sums.at);
    sums.advance(memory.sums);
  }
}

// Units from `first` on; one thread.
template <PackedFormat format>
__device__ void queue_few(const ExpertsTask& task, const FewGateUpMemory<format>& memory,
                          int32_t first, int32_t units) {
  sm90::Place slot;
  if (first > 0) slot.advance(memory.depth);
#pragma unroll 1
  for (int32_t i = first; i < units; ++i) {
    const Unit unit = unit_at(few_unit(i), task.gate_up);
    const bool staged = slot.at >= memory.depth - memory.staging;
    sm90::wait(memory.empty + slot.at, staged ? slot.parity : slot.parity ^ 1);
    queue_strip(task, memory, memory.choice.expert[unit.group], unit.strip, slot.at);
    slot.advance(memory.depth);
  }
}

// A quarter of an SM has 512 registers for each lane: three of these warps and two of
// few_down_kernel's fit, so that its blocks start beside this kernel's, and no second block of
// these.
template <PackedFormat format>
__global__ void __maxnreg__(104) few_gate_up_kernel(const __grid_constant__ ExpertsTask task) {
  extern __shared__ __align__(128) std::byte bytes[];
  Carver carver(bytes);
  const FewGateUpMemory<format> memory(carver, task);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  const Routing& routing = task.routing;
  const ExpertMatrices& matrices = task.gate_up;
  if (thread == 0) memory.set_up();
  __syncthreads();
  // Of the shared expert nothing has to be known.
  const int32_t known = routing.shared && few_unit(0) < matrices.strips ? 1 : 0;
  if (thread == few_queueing_warp * warp_lanes && known)
    queue_strip(task, memory, task.experts - 1, few_unit(0), 0);
  std::byte* const staged = memory.slots[memory.depth - memory.staging].data;
  clear_choice(task, memory.choice);
  __syncthreads();
  wait_for_earlier_kernels();
  let_next_kernel_start();
  const int row = warp / 2;
  const bool routes = row < task.rows && warp < expert_warps;
  float largest = 0;
  FewLogits logits;
  HalfCheck check;
  if (routes) load_few_logits(task, memory.choice, row, logits);
  if (warp < expert_warps)
    stage_few({task.normed, task.normed_stride, task.rows}, staged, min(warp, matrices.chunks - 1),
              check);
  if (routes) largest = choose_few(task, memory.choice, row, logits);
  const bool halved = __syncthreads_or(check.failed()) == 0 && format == PackedFormat::f8;
  const int32_t all = *memory.choice.count * matrices.strips;
  const auto blocks = static_cast<int32_t>(gridDim.x);
  const int32_t units = max(0, all - few_unit(0) + blocks - 1) / blocks;
  if (blockIdx.x == 0 && routes && warp % 2 == 0) publish_few(task, memory.choice, row, largest);
  if (warp == few_queueing_warp) {
    if (lane == 0) queue_few(task, memory, known, units);
  } else if (warp == few_adding_warp) {
    add_few(task, memory, units);
  } else {
    RowFragments b;
    load_few(task.rows, staged, min(warp, matrices.chunks - 1), b);
    // Copies may overwrite the rows now.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncwarp();
    if (lane == 0) {
#pragma unroll
      for (int i = 0; i < memory.staging; ++i)
        sm90::arrive(memory.empty + memory.depth - memory.staging + i);
    }
    if (halved) make_halves(b);
    multiply_few(task, memory, b, halved, units);
  }
}

}  // namespace qnext::ops::cuda
