// The tiles of prompt_experts_sm90.cu: which rows of which expert's list a block multiplies, what
// it has in shared memory, and the kernel that lists them.
#pragma once

#include "ops/launch_cuda.cuh"
#include "ops/matmul/prompt_epilogue.cuh"
#include "ops/sm90/tensor_map.h"

namespace qnext::ops::cuda::prompt_expert_products {

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

}  // namespace qnext::ops::cuda::prompt_expert_products
