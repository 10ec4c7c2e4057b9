// The producers of the prompt form, and what they share with its consumers: the block's place in
// the batch, the ring. prompt_attention_sm90.cu tells the whole.
#pragma once

#include "ops/activation/activation_device.h"
#include "ops/attention/paged_sm90.cuh"

namespace qnext::ops::cuda {

constexpr int widest_head = 256;
constexpr int group_threads = 128;  // a warpgroup
constexpr int threads = 3 * group_threads;
constexpr int tile_queries = 128;
constexpr int group_queries = 64;
constexpr int tile_keys = static_cast<int>(page_positions);
// A block starts with 384 * 168 registers: 2 * 128 * 240 + 128 * 24, or with widening 2 * 128 * 224
// + 128 * 56.
template <KvFormat format>
struct Registers;
template <>
struct Registers<KvFormat::bf16> {
  static constexpr int consumer = 240, producer = 24;
};
template <>
struct Registers<KvFormat::f8> {
  static constexpr int consumer = 224, producer = 56;
};

template <int count>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
// Ordinary writes to shared memory become visible to wgmma.
__device__ inline void publish_writes() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void group_barrier(int id) {
  asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory");
}

struct Prompt {
  Batch batch;
  PagedShape shape;
  PagedCache cache;
  PagedAttention inputs;
};

template <KvFormat format, int width>
struct Layout {
  static constexpr int query_bytes = tile_queries * width * 2;
  static constexpr int slot_bytes = tile_keys * width * 2;
  // 224 KB at width 256: 64 of queries, 5 slots of 32; f8: 4 slots, 2 stages of 16.
  static constexpr int slots = format == KvFormat::bf16 ? 5 : 4;
  static constexpr int stages = format == KvFormat::bf16 ? 0 : 2;
  static constexpr int stage_bytes = tile_keys * width;
  static constexpr int barriers = 2 * slots + 2;
  static constexpr int bytes =
      128 + query_bytes + slots * slot_bytes + stages * stage_bytes + barriers * 8;
};

// The block's place in the batch.
struct Place {
  SequenceRows sequence;
  int first;   // row of the sequence
  int rows;    // at most group rows
  int tiles;   // of keys
  bool found;  // the grid is rounded up
};

// Every warp for itself: tile `index` of all sequences' tiles.
__device__ inline Place find_place(const Batch& batch, int64_t index, int tile_rows) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  for (int64_t begin = 0; begin < batch.sequences; begin += warp_lanes) {
    const int mine = begin + lane < batch.sequences ? batch.sequence[begin + lane].rows : 0;
    const int tiles = (mine + tile_rows - 1) / tile_rows;
    int up_to = tiles;
    for (int distance = 1; distance < warp_lanes; distance *= 2) {
      const int before = __shfl_up_sync(whole_warp, up_to, distance);
      if (lane >= distance) up_to += before;
    }
    const int total = __shfl_sync(whole_warp, up_to, warp_lanes - 1);
    if (index < total) {
      const int at = __ffs(static_cast<int>(__ballot_sync(whole_warp, index < up_to))) - 1;
      Place place;
      place.sequence = batch.sequence[begin + at];
      const int skipped = __shfl_sync(whole_warp, up_to - tiles, at);
      place.first = (static_cast<int>(index) - skipped) * tile_rows;
      place.rows = min(tile_rows, place.sequence.rows - place.first);
      const int positions = place.sequence.first_position + place.first + place.rows;
      place.tiles = (positions + tile_keys - 1) / tile_keys;
      place.found = true;
      return place;
    }
    index -= total;
  }
  return {{}, 0, 0, 0, false};
}

// Tile j's keys and values in the order in which consumers want them: k0, k1, v0, k2, v1, ...
__device__ inline int keys_item(int tile) {
  return tile == 0 ? 0 : 2 * tile - 1;
}
__device__ inline int values_item(int tile, int tiles) {
  return tile == tiles - 1 ? 2 * tiles - 1 : 2 * tile + 2;
}

struct Item {
  int tile;
  bool values;
};
__device__ inline Item item_at(int i, int tiles) {
  if (i == 2 * tiles - 1) return {tiles - 1, true};
  if (i == 0) return {0, false};
  return i % 2 == 1 ? Item{(i + 1) / 2, false} : Item{i / 2 - 1, true};
}

template <KvFormat format, int width>
struct Ring {
  using L = Layout<format, width>;
  std::byte* data;
  uint32_t full, empty, staged;
  __device__ uint32_t slot(int item) const {
    return shared_address(data) + item % L::slots * L::slot_bytes;
  }
  __device__ void wait_full(int item) const {
    barrier_wait(full + item % L::slots * 8, item / L::slots & 1);
  }
  __device__ void wait_empty(int item) const {
    barrier_wait(empty + item % L::slots * 8, (item / L::slots & 1) ^ 1);
  }
  // A whole warp is done with a slot.
  __device__ void release(int item) const {
    __syncwarp();
    if (threadIdx.x % warp_lanes == 0) barrier_arrive(empty + item % L::slots * 8);
  }
};

template <KvFormat format>
__device__ inline const std::byte* source(const Prompt& a, const Place& place, int kv_head,
                                          int block_bytes, Item item) {
  const int page = a.batch.pages[place.sequence.first_page + item.tile];
  return a.cache.base + page * a.cache.page_stride + (2 * kv_head + item.values) * block_bytes;
}

// One warp. The last tile's values behind the sequence's end are made zero before they are shown.
template <int width>
__device__ inline void produce_bf16(const Prompt& a, const Place& place, int kv_head, int dim,
                                    const Ring<KvFormat::bf16, width>& ring) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int block_bytes = tile_keys * dim * 2;
  const int last = place.sequence.first_position + place.sequence.rows - 1;
  const int end_slot = last - (place.tiles - 1) * tile_keys + 1;  // of the last tile
  for (int i = 0; i < 2 * place.tiles; ++i) {
    const Item item = item_at(i, place.tiles);
    const std::byte* const from = source<KvFormat::bf16>(a, place, kv_head, block_bytes, item);
    ring.wait_empty(i);
    const bool cut = item.values && item.tile == place.tiles - 1 && end_slot < tile_keys;
    const uint32_t barrier =
        cut ? ring.staged : ring.full + i % Layout<KvFormat::bf16, width>::slots * 8;
    if (lane == 0) {
      barrier_expect(barrier, block_bytes);
      bulk_copy(ring.slot(i), from, block_bytes, barrier);
    }
    if (!cut) continue;
    barrier_wait(barrier, 0);
    uint4* const sixteen =
        reinterpret_cast<uint4*>(ring.data + i % Layout<KvFormat::bf16, width>::slots *
                                                 Layout<KvFormat::bf16, width>::slot_bytes);
    for (int position = end_slot; position < tile_keys; ++position)
      for (int chunk = lane; chunk < dim / 8; chunk += warp_lanes)
        sixteen[(position / 8 * (dim / 8) + chunk) * 8 + position % 8] = uint4{};
    publish_writes();
    __syncwarp();
    if (lane == 0) barrier_arrive(ring.full + i % Layout<KvFormat::bf16, width>::slots * 8);
  }
}

// The bits of a pair's elements before `count`.
__device__ inline uint32_t first_of_pair(int count) {
  return count <= 0 ? 0 : count == 1 ? 0xFFFF : 0xFFFFFFFF;
}

// A staged block of f8 to f16: 16 bytes become two rows of 16 bytes, of two pieces side by side
// (keys), or of two groups of eight positions (values; those from position `valid` on become zero).
template <bool values, bool cut>
__device__ inline void widen_block(const std::byte* stage, std::byte* slot, int dim, int valid) {
  constexpr int batch = 4;  // loads in flight
  const int thread = static_cast<int>(threadIdx.x) % group_threads;
  const uint4* const from = reinterpret_cast<const uint4*>(stage);
  uint4* const to = reinterpret_cast<uint4*>(slot);
  const int count = tile_keys * dim / 16;
  for (int first = thread; first < count; first += batch * group_threads) {
    uint4 bytes[batch];
#pragma unroll
    for (int i = 0; i < batch; ++i)
      if (first + i * group_threads < count) bytes[i] = from[first + i * group_threads];
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      const int s = first + i * group_threads;
      if (s >= count) break;
      uint32_t low[4], high[4];  // halves of each word
      widen_f8_to_f16(bytes[i].x, low[0], high[0]);
      widen_f8_to_f16(bytes[i].y, low[1], high[1]);
      widen_f8_to_f16(bytes[i].z, low[2], high[2]);
      widen_f8_to_f16(bytes[i].w, low[3], high[3]);
      if constexpr (values) {
        const int group = s / dim, d = s % dim;
        if constexpr (cut) {
          const int left = valid - group * 16;
#pragma unroll
          for (int w = 0; w < 4; ++w) {
            low[w] &= first_of_pair(left - 2 * w);
            high[w] &= first_of_pair(left - 8 - 2 * w);
          }
        }
        to[2 * group * dim + d] = {low[0], low[1], low[2], low[3]};
        to[(2 * group + 1) * dim + d] = {high[0], high[1], high[2], high[3]};
      } else {
        to[s / 8 * 16 + s % 8] = {low[0], high[0], low[1], high[1]};
        to[s / 8 * 16 + s % 8 + 8] = {low[2], high[2], low[3], high[3]};
      }
    }
  }
}

// A warpgroup.
template <int width, bool exact>
__device__ inline void produce_f8(const Prompt& a, const Place& place, int kv_head,
                                  const Ring<KvFormat::f8, width>& ring, std::byte* stages) {
  using L = Layout<KvFormat::f8, width>;
  const int dim = exact ? width : static_cast<int>(a.shape.head_dim);
  const int thread = static_cast<int>(threadIdx.x) % group_threads;
  const int block_bytes = tile_keys * dim;
  const int last = place.sequence.first_position + place.sequence.rows - 1;
  const int items = 2 * place.tiles;
  const auto from = [&](int i) {
    return source<KvFormat::f8>(a, place, kv_head, block_bytes, item_at(i, place.tiles));
  };
  const auto stage = [&](int i, const std::byte* block) {
    const uint32_t barrier = ring.staged + i % L::stages * 8;
    barrier_expect(barrier, block_bytes);
    bulk_copy(shared_address(stages) + i % L::stages * L::stage_bytes, block, block_bytes, barrier);
  };
  if (thread == 0)
    for (int i = 0; i < L::stages && i < items; ++i) stage(i, from(i));
  for (int i = 0; i < items; ++i) {
    const Item item = item_at(i, place.tiles);
    const bool more = thread == 0 && i + L::stages < items;
    const std::byte* const next = more ? from(i + L::stages) : nullptr;
    const int valid = last + 1 - item.tile * tile_keys;
    barrier_wait(ring.staged + i % L::stages * 8, i / L::stages & 1);
    ring.wait_empty(i);
    const std::byte* const block = stages + i % L::stages * L::stage_bytes;
    std::byte* const slot = ring.data + i % L::slots * L::slot_bytes;
    if (!item.values)
      widen_block<false, false>(block, slot, dim, valid);
    else if (valid >= tile_keys)
      widen_block<true, false>(block, slot, dim, valid);
    else
      widen_block<true, true>(block, slot, dim, valid);
    publish_writes();
    group_barrier(1);
    if (thread == 0) barrier_arrive(ring.full + i % L::slots * 8);
    if (more) stage(i + L::stages, next);
  }
}

}  // namespace qnext::ops::cuda
