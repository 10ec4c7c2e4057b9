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
#include "ops/moe/expert_lists_cuda.h"
#include "ops/moe/prompt_expert_copies.cuh"
#include "ops/moe/prompt_experts_cuda.h"

namespace qnext::ops::cuda {

namespace {

using namespace prompt;
using namespace prompt_expert_products;

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
      const Pair pair = turned(bf16_pair(gated(values[0], values[2]), gated(values[1], values[3])));
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
