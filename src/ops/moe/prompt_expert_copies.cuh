// What the copying warps of prompt_experts_sm90.cu do: they take tiles, gather rows and bring
// weights.
#pragma once

#include "ops/moe/prompt_expert_tiles.cuh"
#include "ops/sm90/small_copies.cuh"

namespace qnext::ops::cuda::prompt_expert_products {

// 16 bytes, of which all but the first `bytes` come as zeros.
__device__ inline void copy_chunk(uint32_t to, const std::byte* from, int bytes) {
  // Nothing here reads what it writes before a barrier: no "memory", so loads may move across.
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
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
__device__ inline void gather_rows(const Stages& stages, const GroupedProduct& product,
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
    sm90::close_copies();
    asked.advance();
    if (++gathering.outstanding > stages_in_flight) {
      sm90::wait_for_copies<stages_in_flight>();
      gathering.announce(stages);
    }
  }
}

// By one warp: takes tiles until there are none, ahead of the others, and tells them.
template <RowFormat row_format, Part part>
__device__ inline void take_tiles(ExpertShared& shared, const GroupedProduct& product) {
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
__device__ inline void gather_tiles(const Stages& stages, ExpertShared& shared,
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
  sm90::wait_for_copies<0>();
  while (gathering.outstanding > 0) gathering.announce(stages);
}

// By one warp: brings the weights of the tiles taken.
template <typename Stages>
__device__ inline void copy_tiles(const Stages& stages, ExpertShared& shared,
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

}  // namespace qnext::ops::cuda::prompt_expert_products
