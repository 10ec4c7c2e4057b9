// act = silu(gate n) * up n for one row's experts. The time is that of instructions and of
// latencies one behind the other more than of memory (see stream_row_sm90.cu); so:
//
//   a block's units (an expert's strip of 8 gate and 8 up rows) come in pieces, one copy each; 16
//   warps take two tiles each of a piece, half a chunk of expert_chunks.cuh, and one barrier at the
//   very end separates the products from their sums;
//   copies are queued as soon as the ids are known, before weights of slots are made of logits;
//   there is little code (see stream_row_sm90.cu).
//
// Sums have the order of stream_gate_up.cuh.
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/matmul/half_row.cuh"
#include "ops/moe/stream_experts_task.cuh"

namespace qnext::ops::cuda {

constexpr int row_expert_warps = 16;  // 64 registers each, so that another kernel's block fits
constexpr int row_expert_threads = row_expert_warps * warp_lanes;
static_assert(row_expert_threads == choosing_threads);
constexpr int half_tiles = chunk_tiles / 2;

// What a copy into the ring brings: a part of a unit's strip, but for the expert, which is known
// later than the rest.
struct alignas(16) GateUpPiece {
  const std::byte* data;  // of expert 0
  const float* scales;
  int32_t group;
};

template <PackedFormat format>
struct RowGateUpMemory {
  static constexpr int half_bytes = half_tiles * static_cast<int>(tile_bytes(format));
  static constexpr int most_halves = format == PackedFormat::bf16 ? 8 : 16;  // of a piece
  static constexpr int depth = format == PackedFormat::q4 ? 5 : 3;
  static constexpr bool scaled = format == PackedFormat::f8;

  struct alignas(128) Slot {
    std::byte data[most_halves * half_bytes];
    float2 scale[most_halves];  // f8: of each half's upper and lower rows
  };
  Slot* slots;     // [depth]
  std::byte* x;    // bf16 or f16 [column_tiles][64], in the order of B fragments
  float* partial;  // [units of a block][halves of a strip][tile_rows]
  GateUpPiece* pieces;
  RouteScratch* scratch;
  int32_t* ids;    // [slots]
  float* weights;  // [slots]
  sm90::Barrier *full, *empty;

  __host__ __device__ RowGateUpMemory(Carver& carver, const ExpertsTask& task) {
    slots = carver.take<Slot>(depth);
    x = carver.take<std::byte>(task.gate_up.column_tiles * 128);
    partial = carver.take<float>(int64_t{task.row_units} * halves_of(task) * tile_rows);
    pieces = carver.take<GateUpPiece>(int64_t{task.row_units} * parts_of(task));
    scratch = carver.take<RouteScratch>(1);
    ids = carver.take<int32_t>(task.slots);
    weights = carver.take<float>(task.slots);
    full = carver.take<sm90::Barrier>(depth);
    empty = carver.take<sm90::Barrier>(depth);
  }
  static __host__ __device__ int32_t halves_of(const ExpertsTask& task) {
    return task.gate_up.column_tiles / half_tiles;
  }
  // Pieces of a unit, of the same length.
  static __host__ __device__ int32_t parts_of(const ExpertsTask& task) {
    return (halves_of(task) + most_halves - 1) / most_halves;
  }
  // Whole chunks, and copies of scales of multiples of 16 bytes.
  static bool takes(const ExpertsTask& task) {
    const int32_t tiles = task.gate_up.column_tiles, parts = max(parts_of(task), 1);
    return tiles % (parts * chunk_tiles) == 0 && tiles * 8 <= row_expert_threads &&
           task.row_units * parts <= row_expert_threads;
  }
};

// All blocks' first copies at once would all be late; so a block's second one stands back behind
// the first ones of the others, and so on. None, 800, 1,400, 2,000 and 3,000 cycles: 1,845, 1,861,
// 1,857, 1,829 and 1,781 tokens/s (f8, 12 layers of the 80B).
constexpr int cycles_between_copies = 800;
__device__ inline void let_pass(int cycles) {
  const long long start = clock64();
  while (clock64() - start < cycles) {
  }
}

// A lane's fragments of one tile of the row.
__device__ inline void load_fragments(const std::byte* x, int32_t tile, Pair (&b)[8]) {
  const auto* from = reinterpret_cast<const uint4*>(x + tile * 128 + threadIdx.x % 4 * 32);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint4 words = from[i];
    b[4 * i] = words.x;
    b[4 * i + 1] = words.y;
    b[4 * i + 2] = words.z;
    b[4 * i + 3] = words.w;
  }
}

// What half a chunk adds to a chunk's sum: outputs lane / 4 and lane / 4 + 8 of the row. b: of its
// tiles, in f16 with `halves` (f8). All loads come first: there are too few warps to hide one
// behind the other.
template <PackedFormat format, bool halves = false>
__device__ inline float2 half_sum(const std::byte* data, const Pair (&b)[half_tiles][8],
                                  const float2& scale) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  float c[half_tiles][4] = {};
  LaneTile<format> weights[half_tiles];
#pragma unroll
  for (int i = 0; i < half_tiles; ++i) weights[i].load(data + i * tile_bytes(format), lane);
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int i = 0; i < half_tiles; ++i)
      add_step<format, halves>(c[i], weights[i], step, b[i][2 * step], b[i][2 * step + 1]);
  if constexpr (format == PackedFormat::q4) {
#pragma unroll
    for (int i = 0; i < half_tiles; ++i) {
      c[i][0] *= 1 / LaneTile<format>::small;
      c[i][2] *= 1 / LaneTile<format>::small;
    }
  }
  float2 sum{c[0][0] + c[1][0], c[0][2] + c[1][2]};
  if constexpr (halves) {
    sum.x *= half_row_inverse;
    sum.y *= half_row_inverse;
  }
  if constexpr (format == PackedFormat::f8) {
    sum.x *= scale.x;
    sum.y *= scale.y;
  }
  return sum;
}

// The sum over a unit's halves of chunks for one output: chunks w, w + expert_warps, ... together,
// then those of all w.
__device__ inline float unit_sum(const float* halves, int32_t count) {
  const auto chunk = [&](int32_t half) {
    return halves[half * tile_rows] + halves[(half + 1) * tile_rows];
  };
  float sum = 0;
  if (count == 2 * expert_warps) {  // no more code than that where it is enough
    float chunks[expert_warps];
#pragma unroll
    for (int32_t w = 0; w < expert_warps; ++w) chunks[w] = chunk(2 * w);
    sum = chunks[0];
#pragma unroll
    for (int32_t w = 1; w < expert_warps; ++w) sum += chunks[w];
    return sum;
  }
#pragma unroll 1
  for (int32_t w = 0; w < min(expert_warps, count / 2); ++w) {
    float chunks = chunk(2 * w);
#pragma unroll 1
    for (int32_t half = 2 * (w + expert_warps); half < count; half += 2 * expert_warps)
      chunks += chunk(half);
    sum = w == 0 ? chunks : sum + chunks;
  }
  return sum;
}

template <PackedFormat format>
__global__ void __launch_bounds__(row_expert_threads, 2)
    row_gate_up_kernel(const __grid_constant__ ExpertsTask task) {
  using Memory = RowGateUpMemory<format>;
  extern __shared__ __align__(128) std::byte bytes[];
  __shared__ ChoosingKeys choosing_keys;
  Carver carver(bytes);
  const Memory memory(carver, task);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  const Routing& routing = task.routing;
  const RouteRule rule = rule_of(routing);
  const int32_t strips = task.gate_up.strips, tiles = task.gate_up.column_tiles;
  const int32_t end = strips * task.slots;
  const auto unit_of = [](int32_t order) {
    return static_cast<int32_t>(blockIdx.x + order * gridDim.x);
  };
  const int32_t units = task.row_units - (unit_of(task.row_units - 1) < end ? 0 : 1);
  const int32_t parts = Memory::parts_of(task), pieces = units * parts;
  const int32_t halves = Memory::halves_of(task), piece_halves = halves / parts;
  if (thread < pieces) {
    const int32_t order = thread / parts, first = (thread - order * parts) * piece_halves;
    const Unit at = unit_at(unit_of(order), task.gate_up);
    memory.pieces[thread] = {
        task.gate_up.tiles + int64_t{at.strip} * task.gate_up.strip_bytes +
            first * Memory::half_bytes,
        Memory::scaled ? task.gate_up.scales + at.strip * task.gate_up.strip_scales + 2 * first
                       : nullptr,
        at.group};
  }
  if (thread < Memory::depth) {
    sm90::set_up(memory.full + thread, 1);
    sm90::set_up(memory.empty + thread, row_expert_warps);
    sm90::publish_barriers();
  }
  __syncthreads();
  // By one thread.
  const auto issue = [&](int32_t index, int slot) {
    const GateUpPiece& piece = memory.pieces[index];
    const auto shared = int32_t{routing.shared};
    const int32_t expert =
        piece.group < shared ? task.experts - 1 : memory.ids[piece.group - shared];
    auto* const to = memory.slots + slot;
    sm90::Barrier* const barrier = memory.full + slot;
    const auto bytes = static_cast<uint32_t>(piece_halves * Memory::half_bytes);
    const auto scale_bytes =
        Memory::scaled ? static_cast<uint32_t>(piece_halves) * uint32_t{sizeof(float2)} : 0;
    sm90::arrive_expecting(barrier, bytes + scale_bytes);
    sm90::bulk_copy_once(to->data, piece.data + expert * task.gate_up.expert_bytes, bytes, barrier);
    if constexpr (Memory::scaled)
      sm90::bulk_copy_once(to->scale, piece.scales + expert * task.gate_up.expert_scales,
                           scale_bytes, barrier);
  };
  // A warp a copy: to queue one takes a thread half a microsecond. The shared expert's, of which
  // nothing has to be known, come first.
  const bool queues = lane == 0 && warp < min(pieces, Memory::depth);
  const int known = min(strips * int32_t{routing.shared} > unit_of(0) ? parts : 0, pieces);
  if (queues && warp < known) issue(warp, warp);
  wait_for_earlier_kernels();
  let_next_kernel_start();
  uint4 row{};
  if (thread < tiles * 8) row = __ldcg(reinterpret_cast<const uint4*>(task.normed) + thread);
  const float gate = warp == 0 ? shared_logit(rule, routing.shared_gate) : 0.0f;
  const float largest = choose_together(ChoosingBlock{choosing_keys}, rule, routing.logits,
                                        *memory.scratch, memory.ids, memory.weights);
  const Pair pairs[4] = {row.x, row.y, row.z, row.w};
  const auto put_row = [&](const auto& kept) {
    if (thread >= tiles * 8) return;
    auto* to = reinterpret_cast<Pair*>(memory.x + thread / 8 * 128 + thread % 8 * 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) to[8 * i] = kept(pairs[i]);
  };
  bool halved = false;
  if constexpr (format == PackedFormat::f8) {
    HalfCheck check;
    put_row([&](Pair pair) {
      check.add(pair);
      return scaled_halves(pair);
    });
    halved = __syncthreads_or(check.failed()) == 0;
  } else {
    put_row([](Pair pair) { return pair; });
    __syncthreads();
  }
  if (queues && warp >= known) {
    let_pass((warp - known) * cycles_between_copies);
    issue(warp, warp);
  }
  if (warp == 0 && blockIdx.x == 0) {
    __syncwarp();
    finish_row(rule, routing.logits, gate, largest, memory.ids, memory.weights);
    __syncwarp();
    if (lane < task.slots) {
      routing.ids[lane] = memory.ids[lane];
      routing.weights[lane] = memory.weights[lane];
      if (routing.chosen) routing.chosen[memory.ids[lane]] = 1;
    }
  }
  if (format == PackedFormat::f8 && !halved) {
    put_row([](Pair pair) { return pair; });
    __syncthreads();
  }
  // Pieces that all warps share, or that half of them take by turns.
  constexpr int team_warps = Memory::most_halves, teams = row_expert_warps / team_warps;
  const int team = warp / team_warps, half = warp % team_warps;
  Pair b[half_tiles][8];
  const auto load_row = [&](int32_t part) {
#pragma unroll
    for (int i = 0; i < half_tiles; ++i)
      load_fragments(memory.x, (part * piece_halves + half) * half_tiles + i, b[i]);
  };
  const bool stays = parts == teams, multiplies = half < piece_halves;
  if (stays && multiplies) load_row(team);
  float* to = memory.partial + half * tile_rows + lane / 4;
  int32_t part = 0;
  sm90::Place slot;
#pragma unroll 1
  for (int32_t piece = 0; piece < pieces; ++piece, to += piece_halves * tile_rows) {
    sm90::wait(memory.full + slot.at, slot.parity);
    if (multiplies && (teams == 1 || piece % teams == team)) {
      const typename Memory::Slot& from = memory.slots[slot.at];
      if (!stays) load_row(part);
      const std::byte* const data = from.data + half * Memory::half_bytes;
      const float2 scale = Memory::scaled ? from.scale[half] : float2{};
      float2 sum;
      if constexpr (format == PackedFormat::f8)
        sum = halved ? half_sum<format, true>(data, b, scale) : half_sum<format>(data, b, scale);
      else
        sum = half_sum<format>(data, b, scale);
      if (lane % 4 == 0) {
        to[0] = sum.x;
        to[8] = sum.y;
      }
    }
    if (++part == parts) part = 0;
    if (piece + Memory::depth < pieces) {
      __syncwarp();
      if (lane == 0) {
        sm90::arrive(memory.empty + slot.at);
        if (warp == (piece & (row_expert_warps - 1))) {
          sm90::wait(memory.empty + slot.at, slot.parity);
          issue(piece + Memory::depth, slot.at);
        }
      }
    }
    slot.advance(Memory::depth);
  }
  // A thread a sum; those of gate take up's from their neighbours, and have a value of act.
  __syncthreads();
#pragma unroll 1
  for (int32_t at = thread; at / warp_lanes * warp_lanes < task.row_units * tile_rows;
       at += row_expert_threads) {
    const auto order = static_cast<int32_t>(at / tile_rows);
    const int32_t unit = unit_of(order);
    const bool valid = order < units;
    const auto column = static_cast<int32_t>(at % tile_rows);
    const float sum =
        valid ? unit_sum(memory.partial + order * halves * tile_rows + column, halves) : 0.0f;
    const float up = __shfl_down_sync(whole_warp, sum, 8);
    const float value = silu(sum) * up;
    if (!valid || column >= 8) continue;
    const Unit own = unit_at(unit, task.gate_up);
    const int32_t pair = !routing.shared  ? own.group
                         : own.group == 0 ? task.slots - 1
                                          : own.group - 1;
    Bf16* act = task.act + pair * task.act_stride;
    act[act_place(own.strip, column)] = __bfloat16_as_ushort(__float2bfloat16_rn(value));
    // Columns that pad the last tile are zeros, not what lay there.
    const int32_t padded = own.strip == strips - 1 ? (strips + 7) / 8 * 8 : 0;
#pragma unroll 1
    for (int32_t strip = own.strip + 1; strip < padded; ++strip) act[act_place(strip, column)] = 0;
  }
}

}  // namespace qnext::ops::cuda
