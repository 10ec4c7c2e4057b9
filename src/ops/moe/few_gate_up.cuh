// act = silu(gate n) * up n for the experts that a few rows have chosen. A block an SM goes through
// its units (an expert's strip of 8 gate and 8 up rows, for all rows at once); warps have trades,
// so that nobody who multiplies waits for a copy to be queued or for sums to be added:
//
//   8 multiply: a chunk of four tiles each, whose columns of the rows stay in their registers;
//   one queues copies, a strip each;
//   one adds what they leave, in the order of stream_gate_up.cuh, and stores act.
//
// There is a rehearsal (rehearsal_cuda.cuh).
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/moe/few_choice.cuh"
#include "ops/moe/stream_gate_up.cuh"
#include "ops/rehearsal_cuda.cuh"

namespace qnext::ops::cuda {

constexpr int few_queueing_warp = expert_warps, few_adding_warp = expert_warps + 1;
constexpr int few_gate_up_threads = (expert_warps + 2) * warp_lanes;
static_assert(2 * pair_rows <= expert_warps);

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
  std::byte* unread;
  FewChoice choice;
  PairScratch* pairs;             // [pair_rows]
  sm90::Barrier *full, *empty;    // [depth]
  sm90::Barrier *summed, *added;  // [sums]
  sm90::Barrier* rehearsed;

  __host__ __device__ FewGateUpMemory(Carver& carver, const ExpertsTask& task)
      : slots(carver.take<Slot>(depth)),
        partial(carver.take<float4>(sums * expert_warps * warp_lanes)),
        unread(carver.take<std::byte>(16)),
        choice(carver, task, carver.take<RouteScratch>(task.rows)),
        pairs(carver.take<PairScratch>(pair_rows)),
        full(carver.take<sm90::Barrier>(depth)),
        empty(carver.take<sm90::Barrier>(depth)),
        summed(carver.take<sm90::Barrier>(sums)),
        added(carver.take<sm90::Barrier>(sums)),
        rehearsed(carver.take<sm90::Barrier>(1)) {}

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
    sm90::set_up(rehearsed, 1);
    sm90::publish_barriers();
  }
};

// A block's units: every gridDim.x-th.
__device__ inline int32_t few_unit(int32_t i) {
  return static_cast<int32_t>(blockIdx.x + i * gridDim.x);
}

// One thread: a unit's strip and its scales. real: else a copy of 16 bytes that nobody reads.
template <typename Memory>
__device__ inline void queue_strip(const ExpertsTask& task, const Memory& memory, int32_t expert,
                                   int32_t strip, int slot, bool real) {
  const ExpertMatrices& matrices = task.gate_up;
  constexpr uint32_t least = 16;
  const uint32_t bytes = real ? static_cast<uint32_t>(matrices.strip_bytes) : least;
  const uint32_t scale_bytes =
      real ? static_cast<uint32_t>(matrices.strip_scales * sizeof(float)) : least;
  sm90::Barrier* const barrier = real ? memory.full + slot : memory.rehearsed;
  sm90::arrive_expecting(barrier, bytes + (Memory::scaled ? scale_bytes : 0));
  sm90::bulk_copy_once(
      real ? memory.slots[slot].data : memory.unread,
      matrices.tiles + expert * matrices.expert_bytes + int64_t{strip} * matrices.strip_bytes,
      bytes, barrier);
  if constexpr (Memory::scaled)
    sm90::bulk_copy_once(
        real ? reinterpret_cast<std::byte*>(memory.slots[slot].scale) : memory.unread,
        matrices.scales + expert * matrices.expert_scales + strip * matrices.strip_scales,
        scale_bytes, barrier);
}

template <PackedFormat format>
__device__ void multiply_few(const ExpertsTask& task, const FewGateUpMemory<format>& memory,
                             const RowFragments& b, bool halved, int32_t units, bool rehearsal) {
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const bool works = warp < task.gate_up.chunks;
  sm90::Place slot, sums;
#pragma unroll 1
  for (int32_t i = 0; i < units; ++i) {
    if (!rehearsal) sm90::wait(memory.full + slot.at, slot.parity);
    const auto& from = memory.slots[slot.at];
    const auto read = [&] {
      __syncwarp();
      if (lane == 0 && !rehearsal) sm90::arrive(memory.empty + slot.at);
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
    if (!rehearsal) sm90::wait(memory.added + sums.at, sums.parity ^ 1);
    memory.partial[(sums.at * expert_warps + warp) * warp_lanes + lane] = {sum[0], sum[1], sum[2],
                                                                           sum[3]};
    __syncwarp();
    if (lane == 0 && !rehearsal) sm90::arrive(memory.summed + sums.at);
    slot.advance(memory.depth);
    sums.advance(memory.sums);
  }
}

template <PackedFormat format>
__device__ void add_few(const ExpertsTask& task, const FewGateUpMemory<format>& memory,
                        int32_t units, bool rehearsal) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  sm90::Place sums;
#pragma unroll 1
  for (int32_t i = 0; i < units; ++i) {
    const Unit unit = unit_at(rehearsal ? 0 : few_unit(i), task.gate_up);
    int32_t pairs[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int row = lane % 4 * 2 + j;
      const int32_t slot = memory.choice.slot[unit.group * few_most_rows + row];
      pairs[j] = slot < 0 || rehearsal ? -1 : row * task.slots + slot;
    }
    if (!rehearsal) sm90::wait(memory.summed + sums.at, sums.parity);
    store_act(task, unit.strip, task.gate_up.strips,
              memory.partial + sums.at * expert_warps * warp_lanes, pairs);
    __syncwarp();
    if (lane == 0 && !rehearsal) sm90::arrive(memory.added + sums.at);
    sums.advance(memory.sums);
  }
}

// Units from `first` on; one thread.
template <PackedFormat format>
__device__ void queue_few(const ExpertsTask& task, const FewGateUpMemory<format>& memory,
                          int32_t first, int32_t units, bool rehearsal) {
  sm90::Place slot;
  if (first > 0) slot.advance(memory.depth);
#pragma unroll 1
  for (int32_t i = first; i < units; ++i) {
    const Unit unit = unit_at(rehearsal ? 0 : few_unit(i), task.gate_up);
    if (!rehearsal) {
      const bool staged = slot.at >= memory.depth - memory.staging;
      sm90::wait(memory.empty + slot.at, staged ? slot.parity : slot.parity ^ 1);
    }
    queue_strip(task, memory, rehearsal ? 0 : memory.choice.expert[unit.group], unit.strip, slot.at,
                !rehearsal);
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
    queue_strip(task, memory, task.experts - 1, few_unit(0), 0, true);
  constexpr int first_staging = rehearsing_warps;
  std::byte* const staged = memory.slots[memory.depth - memory.staging].data;
  clear_choice(task, memory.choice);
  __syncthreads();
#pragma unroll 1
  for (int round = 0; round < 2; ++round) {
    const bool rehearsal = round == 0;
    if (!rehearsal) {
      wait_for_earlier_kernels();
      let_next_kernel_start();
    }
    // In a rehearsal some warps route and others go on with the rows and their products.
    const int row = warp / 2;
    const int rows = rehearsal ? min(task.rows, rehearsing_warps / 2) : task.rows;
    const bool routes = row < rows && warp < expert_warps,
               stages = warp < expert_warps && (!rehearsal || warp >= first_staging);
    float largest = 0, logits[pair_logits];
    HalfCheck check;
    if (routes) load_pair_logits(task, row, logits);
    if (stages)
      stage_few({task.normed, task.normed_stride, task.rows}, staged,
                min(warp, matrices.chunks - 1), check);
    if (routes) largest = choose_few_by_two(task, memory.choice, memory.pairs, row, rows, logits);
    bool halved = format == PackedFormat::f8;
    if (!rehearsal) halved = __syncthreads_or(check.failed()) == 0 && halved;
    const int32_t all = *memory.choice.count * matrices.strips;
    const auto blocks = static_cast<int32_t>(gridDim.x);
    const int32_t units = rehearsal ? 1 : max(0, all - few_unit(0) + blocks - 1) / blocks;
    if (!rehearsal && blockIdx.x == 0 && routes && warp % 2 == 0)
      publish_few(task, memory.choice, row, largest);
    if (warp == few_queueing_warp) {
      if (lane == 0) queue_few(task, memory, rehearsal ? 0 : known, units, rehearsal);
    } else if (warp == few_adding_warp) {
      add_few(task, memory, units, rehearsal);
    } else if (!rehearsal || warp >= first_staging) {
      RowFragments b;
      load_few(task.rows, staged, min(warp, matrices.chunks - 1), b);
      // Copies may overwrite the rows now.
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      __syncwarp();
      if (lane == 0 && !rehearsal) {
#pragma unroll
        for (int i = 0; i < memory.staging; ++i)
          sm90::arrive(memory.empty + memory.depth - memory.staging + i);
      }
      if (halved) make_halves(b);
      multiply_few(task, memory, b, halved, units, rehearsal);
    }
    __syncthreads();
    if (!rehearsal) break;
    clear_choice(task, memory.choice);
    __syncthreads();
  }
}

}  // namespace qnext::ops::cuda
