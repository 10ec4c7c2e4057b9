// Experts over many rows: two grouped products with the tiles of matmul/prompt_pipeline.cuh, and a
// sum over slots. The ladder:
//
//   1. list_experts(): the rows of each expert, ascending.
//   2. list_tiles: every list in equal parts of at most 192 rows, rounded up to whole 32: at
//      8,192 rows a list has about 160 +- 13, so tiles of 128 or 256 would be a third air.
//   3. gate_up: a persistent grid takes tiles from a counter. Two copying warps gather rows of x
//      (33 MB at 8,192 rows: they come from L2) by ordinary asynchronous copies of 16 bytes, one
//      brings weights, one looks up tiles ahead of all. The lane that sums a gate value sums its up
//      value: silu(gate) * up is taken in registers.
//   4. down: the same kernel over the rows just made, which lie in list order; results go to their
//      (row, slot)'s own place.
//   5. combine: the sum over slots at memory speed.
#include <algorithm>

#include "base/cuda_error.h"
#include "ops/launch_cuda.cuh"
#include "ops/matmul/f8_rows_cuda.h"
#include "ops/matmul/prompt_epilogue.cuh"
#include "ops/moe/expert_lists_cuda.h"
#include "ops/moe/prompt_experts_cuda.h"
#include "ops/sm90/tensor_map.h"

namespace qnext::ops::cuda {

namespace {

using namespace prompt;

enum class Part { gate_up, down };

// The gathering threads need more registers than a lone copying warp: 2 * 232 + 40 = 3 * 168.
constexpr int expert_multiplying_registers = 232;
constexpr int expert_copying_registers = 40;

// The copying warpgroup's warps: two gather rows, one takes tiles, one copies weights.
constexpr int gathering_warps = 2;
constexpr int gathering_threads = gathering_warps * warp_lanes;
// A stage's gathered rows are announced when two more stages have been asked for.
constexpr int stages_in_flight = 2;
// Tiles known ahead: one being stored, one multiplied, one copied, one looked up.
constexpr int tile_slots = 4;

// Rows of a tile: 32, 64, .. 160, and 192 where four stages leave room for it.
constexpr int size_step = 32;
__host__ __device__ constexpr int rows_limit(PackedFormat format) {
  return format == PackedFormat::bf16 ? 160 : 192;
}

// How both operands lie.
template <PackedFormat format_, RowFormat row_format_>
struct Kind {
  static constexpr PackedFormat format = format_;
  static constexpr RowFormat row_format = row_format_;
  using Stages = prompt::Stages<format, row_format, rows_limit(format)>;
};

// Up to `rows` rows of an expert's list, from pair[first] on; size: the N of its products.
struct RowTile {
  int32_t expert, first, rows, size;
};

struct TileList {
  RowTile* tiles;
  int32_t* count;
  int32_t* taken;  // [2]: work taken by the parts' grids
};

// What the block's warps must know of a tile.
struct TileSlot {
  RowTile tile;
  int32_t feature_tile;  // -1: no more work
  int32_t pair[most_tile_rows];
  uint32_t x_row[most_tile_rows];         // where its row of x begins, in units of 16 bytes
  alignas(8) float unit[most_tile_rows];  // of that row, where it is of e4m3
};

struct ExpertShared {
  TileSlot slot[tile_slots];
  Barrier full[tile_slots], empty[tile_slots];
};

struct ExpertWeights {
  Weights first;  // of expert 0
  int64_t expert_bytes = 0, expert_scales = 0;

  ExpertWeights() = default;
  explicit ExpertWeights(const PackedMatrix& matrix)
      : first(matrix), expert_bytes(matrix.bytes()), expert_scales(matrix.scale_count()) {}
  __device__ Weights of(int expert) const {
    Weights weights = first;
    weights.tiles += expert * expert_bytes;
    if (weights.scales) weights.scales += expert * expert_scales;
    return weights;
  }
};

struct GroupedProduct {
  ExpertWeights weights;
  // gate_up: [rows, columns]; down: [pairs, columns] in list order.
  const std::byte* x = nullptr;
  int64_t x_row_bytes = 0;        // from row to row
  int x_bytes = 0;                // of a row: what lies behind them counts as zeros
  const float* x_unit = nullptr;  // [rows] or [pairs], of rows of e4m3
  Bf16* y = nullptr;  // gate_up: [pairs, features] in list order; down: [pairs, features]
  int64_t y_stride = 0;
  int features = 0;  // of y
  int feature_tiles = 0;
  int slots = 0;
  int experts = 0;
  const int32_t* pair = nullptr;
  TileList list;
};

// --- The tiles ---------------------------------------------------------------------------------

constexpr int list_threads = 1024;

__global__ void __launch_bounds__(list_threads)
    list_tiles(const int32_t* offsets, int experts, int rows_limit, TileList list) {
  __shared__ int32_t of_warp[list_threads / warp_lanes];
  wait_for_earlier_kernels();
  let_next_kernel_start();
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  int32_t carry = 0;
  for (int base = 0; base < experts; base += list_threads) {
    const int expert = base + static_cast<int>(threadIdx.x);
    const int32_t begin = expert < experts ? offsets[expert] : 0;
    const int32_t rows = expert < experts ? offsets[expert + 1] - begin : 0;
    const int32_t tiles = (rows + rows_limit - 1) / rows_limit;
    int32_t inclusive = tiles;
    for (int distance = 1; distance < warp_lanes; distance *= 2) {
      const int32_t other = __shfl_up_sync(whole_warp, inclusive, distance);
      if (lane >= distance) inclusive += other;
    }
    if (lane == warp_lanes - 1) of_warp[warp] = inclusive;
    __syncthreads();
    int32_t at = carry + inclusive - tiles;
    for (int i = 0; i < list_threads / warp_lanes; ++i) {
      if (i < warp) at += of_warp[i];
      carry += of_warp[i];
    }
    __syncthreads();
    // A warp writes its lanes' tiles together: one list may have most of them.
    for (unsigned left = __ballot_sync(whole_warp, tiles > 0); left != 0; left &= left - 1) {
      const int source = __ffs(left) - 1;
      const auto of_source = [&](int32_t value) { return __shfl_sync(whole_warp, value, source); };
      const int32_t all = of_source(tiles), first = of_source(begin), to = of_source(at);
      const int32_t each = of_source(rows) / all, more = of_source(rows) % all;
      for (int32_t i = lane; i < all; i += warp_lanes) {
        const int32_t count = each + (i < more);
        list.tiles[to + i] = {expert - lane + source, first + i * each + min(i, more), count,
                              (count + size_step - 1) / size_step * size_step};
      }
    }
  }
  if (threadIdx.x != 0) return;
  *list.count = carry;
  list.taken[0] = list.taken[1] = 0;
}

// --- Copying -----------------------------------------------------------------------------------

// 16 bytes, of which all but the first `bytes` come as zeros.
__device__ void copy_chunk(uint32_t to, const std::byte* from, int bytes) {
  // Nothing here reads what it writes before a barrier: no "memory", so loads may move across.
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
__device__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int pending>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// A gathering warp's way through the ring: stages asked for, and stages announced as full.
template <typename Stages>
struct Gathering {
  Position<Stages::count> asked, announced;
  int outstanding = 0;

  __device__ void announce(const Stages& stages) {
    sm90::publish_to_products();
    __syncwarp();
    if (threadIdx.x % warp_lanes == 0) sm90::arrive(&stages.control->full[announced.stage]);
    announced.advance();
    --outstanding;
  }
};

// The place of a row's chunk of 16 bytes in the swizzle of its format.
__device__ constexpr int swizzled_chunk(RowFormat format, int row, int chunk) {
  return format == RowFormat::bf16 ? chunk ^ row % 8 : chunk ^ row / 2 % 4;
}

// A pass of the gathering threads copies 8 rows, or 16 of e4m3. The slot's x_row says where they
// are.
template <typename Stages>
__device__ void gather_rows(const Stages& stages, const GroupedProduct& product,
                            const TileSlot& slot, Gathering<Stages>& gathering) {
  constexpr int row_bytes = Stages::row_bytes;
  constexpr int row_chunks = row_bytes / 16;
  constexpr int rows_a_pass = gathering_threads / row_chunks;
  static_assert(rows_a_pass % 8 == 0, "so that a thread's rows have one swizzle");
  const int thread = static_cast<int>(threadIdx.x) % group_threads;
  const int chunk = thread % row_chunks, first_row = thread / row_chunks;
  const uint32_t* x_row = slot.x_row + first_row;
  const int size = slot.tile.size;
  const uint32_t place =
      first_row * row_bytes + (swizzled_chunk(Stages::row_format, first_row, chunk) << 4);
  for (int k = 0; k < stages_of<Stages::format>(product.weights.first.column_tiles); ++k) {
    const int at = k * row_bytes + chunk * 16;
    const int bytes = max(0, min(16, product.x_bytes - at));
    const std::byte* from = product.x + (bytes > 0 ? at : 0);
    auto& asked = gathering.asked;
    sm90::wait(&stages.control->empty[asked.stage], asked.parity ^ 1);
    const uint32_t to = sm90::shared_address(stages.rows(asked.stage)) + place;
#pragma unroll
    for (int first = 0; first < rows_limit(Stages::format); first += size_step) {
      if (first >= size) break;
      // Several places are looked up together: one after the other, each would wait for its own.
      uint32_t from_row[size_step / rows_a_pass];
#pragma unroll
      for (int i = 0; i < size_step / rows_a_pass; ++i)
        from_row[i] = x_row[first + i * rows_a_pass];
#pragma unroll
      for (int i = 0; i < size_step / rows_a_pass; ++i)
        copy_chunk(to + (first + i * rows_a_pass) * row_bytes, from + int64_t{from_row[i]} * 16,
                   bytes);
    }
    commit_copies();
    asked.advance();
    if (++gathering.outstanding > stages_in_flight) {
      wait_for_copies<stages_in_flight>();
      gathering.announce(stages);
    }
  }
}

// By one warp: takes tiles until there are none, ahead of the others, and tells them.
template <RowFormat row_format, Part part>
__device__ void take_tiles(ExpertShared& shared, const GroupedProduct& product) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int work = *product.list.count * product.feature_tiles;
  const auto chunks = static_cast<uint32_t>(product.x_row_bytes / 16);
  int32_t* taken = product.list.taken + (part == Part::down);
  Position<tile_slots> at;
  for (bool more = true; more; at.advance()) {
    const int mine = __shfl_sync(whole_warp, lane == 0 ? atomicAdd(taken, 1) : 0, 0);
    more = mine < work;
    TileSlot& slot = shared.slot[at.stage];
    sm90::wait(&shared.empty[at.stage], at.parity ^ 1);
    if (more) {
      const RowTile tile = product.list.tiles[mine / product.feature_tiles];
      if (lane == 0) slot.tile = tile;
      for (int row = lane; row < tile.size; row += warp_lanes) {
        const int place = tile.first + min(row, tile.rows - 1);
        const int pair = product.pair[place];
        slot.pair[row] = pair;
        const int x_row = part == Part::gate_up ? pair / product.slots : place;
        slot.x_row[row] = x_row * chunks;
        if constexpr (row_format == RowFormat::f8) slot.unit[row] = product.x_unit[x_row];
      }
    }
    if (lane == 0) slot.feature_tile = more ? mine % product.feature_tiles : -1;
    __syncwarp();
    if (lane == 0) sm90::arrive(&shared.full[at.stage]);
  }
}

// By the gathering warps: brings the rows of the tiles taken.
template <typename Stages>
__device__ void gather_tiles(const Stages& stages, ExpertShared& shared,
                             const GroupedProduct& product) {
  Position<tile_slots> at;
  Gathering<Stages> gathering;
  for (;;) {
    sm90::wait(&shared.full[at.stage], at.parity);
    const TileSlot& slot = shared.slot[at.stage];
    if (slot.feature_tile < 0) break;
    gather_rows(stages, product, slot, gathering);
    __syncwarp();
    if (threadIdx.x % warp_lanes == 0) sm90::arrive(&shared.empty[at.stage]);
    at.advance();
  }
  wait_for_copies<0>();
  while (gathering.outstanding > 0) gathering.announce(stages);
}

// By one warp: brings the weights of the tiles taken.
template <typename Stages>
__device__ void copy_tiles(const Stages& stages, ExpertShared& shared,
                           const GroupedProduct& product, const CUtensorMap& map) {
  Position<tile_slots> slot;
  Position<Stages::count> at;
  for (;;) {
    sm90::wait(&shared.full[slot.stage], slot.parity);
    const int expert = shared.slot[slot.stage].tile.expert;
    const int feature_tile = shared.slot[slot.stage].feature_tile;
    __syncwarp();
    if (threadIdx.x % warp_lanes == 0) sm90::arrive(&shared.empty[slot.stage]);
    if (feature_tile < 0) return;
    const int first_strip = feature_tile * tile_strips;
    copy_weights(
        stages, at, product.weights.of(expert), first_strip, &map,
        expert * product.weights.first.strips + first_strip, [](bool) { return 0; },
        [](int, int, bool) {});
    slot.advance();
  }
}

// --- Multiplying -------------------------------------------------------------------------------

// silu(gate) * up. The exponential and the quotient are good to a few units of the last fp32 place,
// and bf16 follows.
__device__ float gated(float gate, float up) {
  return __fdividef(gate, 1.0f + __expf(-gate)) * up;
}

// A strip's gate and up sums are 8 features of y: a warp's two strips 16 of them, 32 bytes.
template <int N>
__device__ void store_gated(const float (&sum)[blocks_a_thread][N / 2], Bf16* y, int64_t stride,
                            int rows, int feature, int features) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int own = feature + lane % 4 * 2;
  Bf16* to = y + lane / 4 * stride + own;
  rows -= lane / 4;
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
#pragma unroll
    for (int m = 0; m < blocks_a_thread; ++m) {
      const float* values = sum[m] + 4 * j;
      const Pair pair = turned(rounded(gated(values[0], values[2]), gated(values[1], values[3])));
      if (rows > 0 && own + 8 * m + 1 < features)
        *reinterpret_cast<Pair*>(to + 8 * m) = pair;
      else if (rows > 0 && own + 8 * m < features)
        to[8 * m] = static_cast<Bf16>(pair);
    }
    to += 8 * stride;
    rows -= 8;
    asm volatile("" ::: "memory");  // one j after the other: together they would need too much
  }
}

template <Part part, int N, typename Stages>
__device__ void multiply_and_store(const Stages& stages, Position<Stages::count>& at,
                                   const GroupedProduct& product, const TileSlot& slot) {
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int first_strip = warp * blocks_a_thread;
  float sum[blocks_a_thread][N / 2];
  multiply_tile<N>(stages, at, product.weights.first.column_tiles, first_strip, slot.unit, sum);
  const int strip = slot.feature_tile * tile_strips + first_strip;
  const int rows = slot.tile.rows;
  if constexpr (part == Part::gate_up) {
    store_gated<N>(sum, product.y + slot.tile.first * product.y_stride, product.y_stride, rows,
                   8 * strip, product.features);
  } else {
    store_bf16<N>(sum, product.y, product.y_stride, 16 * strip, product.features, true, [&](int j) {
      const int row = 8 * j + lane / 4;
      return row < rows ? slot.pair[row] : -1;
    });
  }
}

// With the tile's size out of `size, larger...`.
template <Part part, int size, int... larger, typename Stages>
__device__ void multiply_size(const Stages& stages, Position<Stages::count>& at,
                              const GroupedProduct& product, const TileSlot& slot, int tile_size) {
  if constexpr (sizeof...(larger) == 0) {
    multiply_and_store<part, size>(stages, at, product, slot);
  } else {
    if (tile_size == size)
      multiply_and_store<part, size>(stages, at, product, slot);
    else
      multiply_size<part, larger...>(stages, at, product, slot, tile_size);
  }
}

template <Part part, typename Stages>
__device__ void multiply_tiles(const Stages& stages, ExpertShared& shared,
                               const GroupedProduct& product) {
  Position<tile_slots> ring;
  Position<Stages::count> at;
  for (;;) {
    sm90::wait(&shared.full[ring.stage], ring.parity);
    const TileSlot& slot = shared.slot[ring.stage];
    if (slot.feature_tile < 0) return;
    if constexpr (rows_limit(Stages::format) == 160)
      multiply_size<part, 32, 64, 96, 128, 160>(stages, at, product, slot, slot.tile.size);
    else
      multiply_size<part, 32, 64, 96, 128, 160, 192>(stages, at, product, slot, slot.tile.size);
    __syncwarp();
    if (threadIdx.x % warp_lanes == 0) sm90::arrive(&shared.empty[ring.stage]);
    ring.advance();
  }
}

template <typename Kind, Part part>
__global__ void __launch_bounds__(threads, 1)
    experts_kernel(const GroupedProduct product, const __grid_constant__ CUtensorMap map) {
  extern __shared__ std::byte dynamic[];
  __shared__ ExpertShared shared;
  const typename Kind::Stages stages(dynamic);
  if (threadIdx.x == 0) {
    for (int i = 0; i < tile_slots; ++i) {
      sm90::set_up(&shared.full[i], 1);
      sm90::set_up(&shared.empty[i], multiplying_warps + gathering_warps + 1);
    }
    stages.set_up(1 + gathering_warps);
  }
  __syncthreads();
  wait_for_earlier_kernels();
  let_next_kernel_start();

  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  if (warp >= multiplying_warps) {
    sm90::give_registers_back<expert_copying_registers>();
    if (warp < multiplying_warps + gathering_warps)
      gather_tiles(stages, shared, product);
    else if (warp == multiplying_warps + gathering_warps)
      take_tiles<Kind::row_format, part>(shared, product);
    else
      copy_tiles(stages, shared, product, map);
  } else {
    sm90::take_registers<expert_multiplying_registers>();
    multiply_tiles<part>(stages, shared, product);
  }
}

// --- The sum over slots ------------------------------------------------------------------------

constexpr int combine_threads = 128;

__device__ float2 widened(Pair pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u)};
}

// y[row] += sum over slots. A thread owns 8 columns; `down` rows are padded to whole eights.
__global__ void __launch_bounds__(combine_threads)
    combine(const Bf16* down, int64_t down_stride, const float* weights, int slots, int columns,
            float* y, int64_t y_stride) {
  wait_for_earlier_kernels();
  let_next_kernel_start();
  const int64_t row = blockIdx.x;
  const int column = 8 * static_cast<int>(blockIdx.y * combine_threads + threadIdx.x);
  if (column >= columns) return;
  float sum[8] = {};
#pragma unroll 4
  for (int slot = 0; slot < slots; ++slot) {
    const int64_t pair = row * slots + slot;
    const float weight = weights[pair];
    const uint4 values = __ldcs(reinterpret_cast<const uint4*>(down + pair * down_stride + column));
    const Pair words[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 two = widened(words[i]);
      sum[2 * i] = fmaf(weight, two.x, sum[2 * i]);
      sum[2 * i + 1] = fmaf(weight, two.y, sum[2 * i + 1]);
    }
  }
  float* to = y + row * y_stride + column;
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (column + i < columns) to[i] += sum[i];
}

// --- The host's part ---------------------------------------------------------------------------

int64_t rounded_up(int64_t value, int64_t to) {
  return (value + to - 1) / to * to;
}

struct Workspace {
  void* lists;
  TileList tiles;
  Bf16* act;            // [pairs, act_stride] in list order
  Bf16* down;           // [pairs, down_stride]
  F8Rows x_f8, act_f8;  // of the products of e4m3
  int64_t act_stride, down_stride;
  size_t bytes;

  Workspace(const PackedExperts& experts, int64_t rows, int64_t pairs, Activations activations,
            void* memory)
      : act_stride(rounded_up(experts.width, 8)), down_stride(rounded_up(experts.hidden, 8)) {
    size_t used = 0;
    const auto take = [&](size_t size) {
      void* part = static_cast<std::byte*>(memory) + used;
      used += (size + 255) / 256 * 256;
      return part;
    };
    lists = take(expert_lists_bytes(experts.experts, pairs));
    const int64_t most_tiles = pairs / rows_limit(experts.format) + experts.experts;
    tiles.tiles = static_cast<RowTile*>(take(static_cast<size_t>(most_tiles) * sizeof(RowTile)));
    tiles.count = static_cast<int32_t*>(take(3 * sizeof(int32_t)));
    tiles.taken = tiles.count + 1;
    act = static_cast<Bf16*>(take(static_cast<size_t>(pairs * act_stride) * sizeof(Bf16)));
    down = static_cast<Bf16*>(take(static_cast<size_t>(pairs * down_stride) * sizeof(Bf16)));
    const auto take_f8 = [&](int64_t count, int64_t columns) {
      F8Rows to;
      to.stride = f8_columns(columns);
      to.values = static_cast<uint8_t*>(take(static_cast<size_t>(count * to.stride)));
      to.unit = static_cast<float*>(take(static_cast<size_t>(count) * sizeof(float)));
      return to;
    };
    if (activations == Activations::f8) {
      x_f8 = take_f8(rows, experts.hidden);
      act_f8 = take_f8(pairs, experts.width);
    }
    bytes = used;
  }
};

template <PackedFormat format, RowFormat row_format, Part part>
void launch(cudaStream_t stream, const GroupedProduct& product) {
  using Kind = Kind<format, row_format>;
  const Weights& weights = product.weights.first;
  const CUtensorMap map = sm90::map_tiles(weights.tiles, tile_bytes(format), weights.column_tiles,
                                          int64_t{weights.strips} * product.experts, tile_strips);
  launch_overlapped(part == Part::gate_up ? "prompt_experts gate_up" : "prompt_experts down",
                    experts_kernel<Kind, part>, static_cast<unsigned>(multiprocessors()), threads,
                    Kind::Stages::shared_bytes, stream, product, map);
}

template <Part part>
void launch_product(cudaStream_t stream, PackedFormat format, const GroupedProduct& product) {
  if (product.x_unit) return launch<PackedFormat::f8, RowFormat::f8, part>(stream, product);
  switch (format) {
    case PackedFormat::bf16:
      return launch<PackedFormat::bf16, RowFormat::bf16, part>(stream, product);
    case PackedFormat::f8:
      return launch<PackedFormat::f8, RowFormat::bf16, part>(stream, product);
    case PackedFormat::q4:
      return launch<PackedFormat::q4, RowFormat::bf16, part>(stream, product);
  }
}

// Of `matrix` and the rows of x, as they are or rounded to to.values.
GroupedProduct grouped(cudaStream_t stream, const PackedMatrix& matrix, int experts,
                       const ExpertLists& lists, int64_t slots, const TileList& tiles,
                       const Bf16* x, int64_t x_stride, int64_t rows, const F8Rows& to) {
  GroupedProduct product;
  product.weights = ExpertWeights(matrix);
  product.list = tiles;
  product.feature_tiles = (product.weights.first.strips + tile_strips - 1) / tile_strips;
  product.slots = static_cast<int>(slots);
  product.pair = lists.pair;
  product.experts = experts;
  if (to.values) {
    round_rows_to_f8(stream, x, x_stride, rows, matrix.columns, to);
    product.x = reinterpret_cast<const std::byte*>(to.values);
    product.x_row_bytes = to.stride;
    product.x_bytes = static_cast<int>(to.stride);
    product.x_unit = to.unit;
  } else {
    product.x = reinterpret_cast<const std::byte*>(x);
    product.x_row_bytes = 2 * x_stride;
    product.x_bytes = static_cast<int>(2 * matrix.columns);
  }
  return product;
}

}  // namespace

size_t prompt_experts_bytes(const PackedExperts& experts, int64_t rows, int64_t slots,
                            Activations activations) {
  return Workspace(experts, rows, rows * slots, activations, nullptr).bytes;
}

void prompt_experts(cudaStream_t stream, const Bf16* x, int64_t x_stride, int64_t rows,
                    const PackedExperts& experts, const int32_t* ids, const float* weights,
                    int64_t slots, Activations activations, float* y, int64_t y_stride,
                    void* workspace) {
  if (activations == Activations::f8 && experts.format != PackedFormat::f8)
    fail_cuda("rows of e4m3 are multiplied with f8 weights only");
  if (rows == 0) return;
  const Workspace own(experts, rows, rows * slots, activations, workspace);
  const ExpertLists lists = list_experts(stream, ids, rows, slots, experts.experts, own.lists);
  launch_overlapped("prompt_experts tiles", list_tiles, 1, list_threads, 0, stream, lists.offsets,
                    static_cast<int>(experts.experts), rows_limit(experts.format), own.tiles);

  const auto all = static_cast<int>(experts.experts);
  GroupedProduct gate_up = grouped(stream, experts.gate_up(0), all, lists, slots, own.tiles, x,
                                   x_stride, rows, own.x_f8);
  gate_up.y = own.act;
  gate_up.y_stride = own.act_stride;
  gate_up.features = static_cast<int>(experts.width);
  launch_product<Part::gate_up>(stream, experts.format, gate_up);

  GroupedProduct down = grouped(stream, experts.down(0), all, lists, slots, own.tiles, own.act,
                                own.act_stride, rows * slots, own.act_f8);
  down.y = own.down;
  down.y_stride = own.down_stride;
  down.features = static_cast<int>(experts.hidden);
  launch_product<Part::down>(stream, experts.format, down);

  const auto eights = static_cast<unsigned>((experts.hidden + 7) / 8);
  const dim3 grid(static_cast<unsigned>(rows), (eights + combine_threads - 1) / combine_threads);
  launch_overlapped("prompt_experts combine", combine, grid, combine_threads, 0, stream, own.down,
                    own.down_stride, weights, static_cast<int>(slots),
                    static_cast<int>(experts.hidden), y, y_stride);
}

}  // namespace qnext::ops::cuda
