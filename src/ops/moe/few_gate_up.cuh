// act = silu(gate n) * up n for the experts that a few rows have chosen. A block an SM goes through
// its units (an expert's strip of 8 gate and 8 up rows, for all rows at once); warps have trades,
// so that nobody who multiplies waits for a copy to be queued or for sums to be added:
//
//   8 multiply: a chunk of four tiles each, whose columns of the rows stay in their registers;
//   one queues copies of strips;
//   one adds what they leave, in the order of stream_gate_up.cuh, and stores act;
//   one asks for the rows, and is there so that no second block fits (see few_gate_up_kernel()).
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/moe/few_choice.cuh"
#include "ops/moe/stream_gate_up.cuh"

namespace qnext::ops::cuda {

constexpr int few_queueing_warp = expert_warps, few_adding_warp = expert_warps + 1;
constexpr int few_fetching_warp = expert_warps + 2;
constexpr int few_gate_up_threads = (expert_warps + 3) * warp_lanes;
static_assert(most_few_rows * FewWarps::threads <= expert_warps * warp_lanes);

template <PackedFormat format>
struct FewGateUpMemory {
  static constexpr int chunk_bytes = chunk_tiles * static_cast<int>(tile_bytes(format));
  static constexpr int depth = format == PackedFormat::q4 ? 5 : 3;
  // The last slot of the ring holds the rows until all warps have taken their fragments.
  static constexpr int staging = depth - 1;
  static constexpr int sums = 2;  // units whose sums wait to be added
  static constexpr bool scaled = format == PackedFormat::f8;

  struct alignas(128) Slot {
    std::byte data[expert_warps * chunk_bytes];
    float4 scale[scaled ? expert_warps : 1];  // of each chunk
  };
  Slot* slots;      // [depth]
  float4* partial;  // [sums][expert_warps][warp_lanes]
  FewChoice choice;
  sm90::Barrier *full, *empty;          // [depth]
  sm90::Barrier* rows;                  // [1]: they have come
  sm90::Barrier *summed, *added;        // [sums]
  int32_t *unit_of_slot, *unit_of_sum;  // [depth], [sums]: or none_left

  __host__ __device__ FewGateUpMemory(Carver& carver, const ExpertsTask& task)
      : slots(carver.take<Slot>(depth)),
        partial(carver.take<float4>(sums * expert_warps * warp_lanes)),
        choice(carver, task, carver.take<RouteScratch>(task.rows)),
        full(carver.take<sm90::Barrier>(depth)),
        empty(carver.take<sm90::Barrier>(depth)),
        rows(carver.take<sm90::Barrier>(1)),
        summed(carver.take<sm90::Barrier>(sums)),
        added(carver.take<sm90::Barrier>(sums)),
        unit_of_slot(carver.take<int32_t>(depth)),
        unit_of_sum(carver.take<int32_t>(sums)) {}

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
    sm90::set_up(rows, 1);
    sm90::publish_barriers();
  }
  // + 16: neighbouring rows share no banks.
  static __device__ int32_t row_bytes(const ExpertsTask& task) {
    return task.gate_up.column_tiles * 128 + 16;
  }
};
constexpr int32_t none_left = -1;

// A block's first units: every gridDim.x-th.
__device__ inline int32_t few_unit(int32_t i) {
  return static_cast<int32_t>(blockIdx.x + i * gridDim.x);
}

// One thread: a unit's strip and its scales.
template <PackedFormat format>
__device__ inline void queue_strip(const ExpertsTask& task, const FewGateUpMemory<format>& memory,
                                   int32_t expert, int32_t strip, int slot) {
  const ExpertMatrices& matrices = task.gate_up;
  const auto bytes = static_cast<uint32_t>(matrices.strip_bytes);
  const auto scale_bytes = static_cast<uint32_t>(matrices.strip_scales * sizeof(float));
  sm90::Barrier* const barrier = memory.full + slot;
  sm90::arrive_expecting(barrier, bytes + (memory.scaled ? scale_bytes : 0));
  sm90::bulk_copy_once(
      memory.slots[slot].data,
      matrices.tiles + expert * matrices.expert_bytes + int64_t{strip} * matrices.strip_bytes,
      bytes, barrier);
  if constexpr (memory.scaled)
    sm90::bulk_copy_once(
        memory.slots[slot].scale,
        matrices.scales + expert * matrices.expert_scales + strip * matrices.strip_scales,
        scale_bytes, barrier);
}

// A warp. The first units are shared out beforehand, the last ones taken by whoever comes to them,
// as some blocks start late; such a unit is asked for a copy ahead, so that nobody waits for the
// answer.
template <PackedFormat format>
__device__ void queue_few(const ExpertsTask& task, const FewGateUpMemory<format>& memory) {
  constexpr int32_t units_to_take = 4;  // of a block
  const ExpertMatrices& matrices = task.gate_up;
  const auto blocks = static_cast<int32_t>(gridDim.x);
  const bool queues = threadIdx.x % warp_lanes == 0;
  // Of the shared expert nothing has to be known.
  const int32_t known = task.routing.shared && few_unit(0) < matrices.strips ? 1 : 0;
  int32_t all = matrices.strips, given = INT32_MAX, taken = 0;
  sm90::Place slot;
#pragma unroll 1
  for (int32_t i = 0;; ++i) {
    if (i == known) {
      wait_for_earlier_kernels();
      let_next_kernel_start();
      __syncthreads();
      all = *memory.choice.count * matrices.strips;
      if (task.turns) given = max(2, all / blocks - units_to_take);
    }
    const int32_t unit = i < given ? few_unit(i) : __shfl_sync(whole_warp, taken, 0);
    const bool ends = unit >= all;
    if (queues) {
      sm90::wait(memory.empty + slot.at, slot.at == memory.staging ? slot.parity : slot.parity ^ 1);
      memory.unit_of_slot[slot.at] = ends ? none_left : unit;
      if (ends) {
        sm90::arrive(memory.full + slot.at);
      } else {
        const Unit at = unit_at(unit, matrices);
        queue_strip(task, memory, memory.choice.expert[at.group], at.strip, slot.at);
        if (i + 1 >= given) taken = given * blocks + atomicAdd(&task.turns->taken, 1);
      }
    }
    if (ends) break;
    slot.advance(memory.depth);
  }
  if (!queues || !task.turns) return;
  // The last block leaves it as it was found.
  if (atomicAdd(&task.turns->done, 1) == blocks - 1) *task.turns = {};
}

// The rows, as they lie in memory: one thread asks for them, and the warps that multiply take what
// is theirs. By copies, as the loads of 132 blocks at once would make each other late.
template <PackedFormat format>
__device__ inline void queue_rows(const ExpertsTask& task, const FewGateUpMemory<format>& memory) {
  const auto bytes = static_cast<uint32_t>(task.gate_up.column_tiles * 128);
  sm90::arrive_expecting(memory.rows, static_cast<uint32_t>(task.rows) * bytes);
#pragma unroll 1
  for (int row = 0; row < task.rows; ++row)
    sm90::bulk_copy(memory.slots[memory.staging].data + row * memory.row_bytes(task),
                    task.normed + row * task.normed_stride, bytes, memory.rows);
}
template <PackedFormat format>
__device__ inline void take_rows(const ExpertsTask& task, const FewGateUpMemory<format>& memory,
                                 RowFragments& b) {
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes, row = lane / 4;
  const bool valid = row < task.rows && warp < task.gate_up.chunks;
  sm90::wait(memory.rows, 0);
  const auto* from = reinterpret_cast<const Pair*>(memory.slots[memory.staging].data +
                                                   row * memory.row_bytes(task)) +
                     warp * chunk_tiles * 32 + lane % 4;
#pragma unroll
  for (int tile = 0; tile < chunk_tiles; ++tile)
#pragma unroll
    for (int i = 0; i < 8; ++i) b[tile][i] = valid ? from[tile * 32 + 4 * i] : 0;
  __syncwarp();
  if (lane == 0) sm90::arrive(memory.empty + memory.staging);
}

template <PackedFormat format>
__device__ void multiply_few(const ExpertsTask& task, const FewGateUpMemory<format>& memory,
                             const RowFragments& b, bool halved) {
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  sm90::Place slot, sums;
#pragma unroll 1
  for (bool ends = false; !ends;) {
    sm90::wait(memory.full + slot.at, slot.parity);
    const auto& from = memory.slots[slot.at];
    const int32_t unit = memory.unit_of_slot[slot.at];
    ends = unit == none_left;
    float sum[4] = {};
    if (!ends) {
      const std::byte* const data = from.data + warp * memory.chunk_bytes;
      const float4 scale = memory.scaled ? from.scale[warp] : float4{};
      const auto read = [&] {
        __syncwarp();
        if (lane == 0) sm90::arrive(memory.empty + slot.at);
      };
      if constexpr (format == PackedFormat::f8) {
        if (halved)
          few_chunk_sum<format, true>(data, scale, b, sum, read);
        else
          few_chunk_sum<format, false>(data, scale, b, sum, read);
      } else {
        few_chunk_sum<format, false>(data, scale, b, sum, read);
      }
      // Without a chunk of its own, whatever lay there.
      if (warp >= task.gate_up.chunks)
#pragma unroll
        for (float& value : sum) value = 0;
    }
    sm90::wait(memory.added + sums.at, sums.parity ^ 1);
    memory.partial[(sums.at * expert_warps + warp) * warp_lanes + lane] = {sum[0], sum[1], sum[2],
                                                                           sum[3]};
    if (warp == 0) memory.unit_of_sum[sums.at] = unit;
    __syncwarp();
    if (lane == 0) sm90::arrive(memory.summed + sums.at);
    slot.advance(memory.depth);
    sums.advance(memory.sums);
  }
}

template <PackedFormat format>
__device__ void add_few(const ExpertsTask& task, const FewGateUpMemory<format>& memory) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  sm90::Place sums;
#pragma unroll 1
  for (;;) {
    sm90::wait(memory.summed + sums.at, sums.parity);
    const int32_t index = memory.unit_of_sum[sums.at];
    if (index == none_left) return;
    const Unit unit = unit_at(index, task.gate_up);
    int32_t pairs[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int row = lane % 4 * 2 + j;
      const int32_t slot = memory.choice.slot[unit.group * few_columns + row];
      pairs[j] = slot < 0 ? -1 : row * task.slots + slot;
    }
    store_act(task, unit.strip, task.gate_up.strips,
              memory.partial + sums.at * expert_warps * warp_lanes, pairs);
    __syncwarp();
    if (lane == 0) sm90::arrive(memory.added + sums.at);
    sums.advance(memory.sums);
  }
}

// A quarter of an SM has 512 registers for each lane: three of these warps (81 to 104 registers,
// given out by eights) and two of few_down_kernel's fit, so that its blocks start beside this
// kernel's, but not six of these, a second block. Shared memory does not tell them apart.
template <PackedFormat format>
__global__ void __maxnreg__(104) few_gate_up_kernel(const __grid_constant__ ExpertsTask task) {
  extern __shared__ __align__(128) std::byte bytes[];
  Carver carver(bytes);
  const FewGateUpMemory<format> memory(carver, task);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  if (thread == 0) memory.set_up();
  clear_choice(task, memory.choice);
  __syncthreads();
  if (warp == few_queueing_warp) {
    queue_few(task, memory);
    return;
  }
  wait_for_earlier_kernels();
  let_next_kernel_start();
  if (warp == few_fetching_warp) {
    if (lane == 0) queue_rows(task, memory);
    __syncthreads();
    return;
  }
  if (warp == few_adding_warp) {
    __syncthreads();
    add_few(task, memory);
    return;
  }
  const int row = warp / 2;
  const bool routes = row < task.rows;
  float largest = 0;
  if (routes) {
    FewLogits logits;
    load_few_logits(task, memory.choice, row, logits);
    largest = choose_few(task, memory.choice, row, logits);
  }
  __syncthreads();
  if (blockIdx.x == 0 && routes && warp % 2 == 0) publish_few(task, memory.choice, row, largest);
  RowFragments b;
  take_rows(task, memory, b);
  bool halved = false;
  if constexpr (format == PackedFormat::f8) {
    HalfCheck check;
#pragma unroll
    for (const auto& tile : b)
#pragma unroll
      for (const Pair pair : tile) check.add(pair);
    halved = !__any_sync(whole_warp, check.failed());
    if (halved) make_halves(b);
  }
  multiply_few(task, memory, b, halved);
}

}  // namespace qnext::ops::cuda
