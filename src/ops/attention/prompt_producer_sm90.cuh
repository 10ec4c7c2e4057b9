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
// A block starts with 384 * 168 registers: 2 * 128 * 240 + 128 * 24.
constexpr int consumer_registers = 240, producer_registers = 24;

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
  static constexpr int query_bytes = tile_queries * width * element_bytes(format);
  static constexpr int slot_bytes = tile_keys * width * element_bytes(format);
  // 224 KB at width 256: 64 of queries and 5 slots of 32; f8: 32 of queries and 12 slots of 16.
  static constexpr int slots = format == KvFormat::bf16 ? 5 : 12;
  // f8: what a query's operand must be multiplied by.
  static constexpr int units_bytes = format == KvFormat::bf16 ? 0 : tile_queries * 4;
  static constexpr int barriers = 2 * slots + 1;
  static constexpr int bytes = 128 + query_bytes + slots * slot_bytes + units_bytes + barriers * 8;
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
  uint32_t full, empty, cut;
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

// The values of positions from `end` on (of 0..63) become zero. One warp.
template <KvFormat format>
__device__ inline void erase_behind(std::byte* values, int dim, int end) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  uint4* const sixteen = reinterpret_cast<uint4*>(values);
  if constexpr (format == KvFormat::bf16) {
    for (int position = end; position < tile_keys; ++position)
      for (int chunk = lane; chunk < dim / 8; chunk += warp_lanes)
        sixteen[(position / 8 * (dim / 8) + chunk) * 8 + position % 8] = uint4{};
  } else {
    const auto first_of_pair = [](int count) {  // the bits of the elements before `count`
      return count <= 0 ? 0u : count == 1 ? 0xFFu : 0xFFFFu;
    };
    for (int group = end / 16; group < tile_keys / 16; ++group) {
      uint32_t kept[4];  // as f8_value_byte
      for (int t = 0; t < 4; ++t)
        kept[t] = first_of_pair(end - group * 16 - 2 * t) |
                  first_of_pair(end - group * 16 - 2 * t - 8) << 16;
      for (int d = lane; d < dim; d += warp_lanes) {
        uint4& word = sixteen[group * dim + d];
        word = {word.x & kept[0], word.y & kept[1], word.z & kept[2], word.w & kept[3]};
      }
    }
  }
}

// One warp. The last tile's values behind the sequence's end are made zero before they are shown.
template <KvFormat format, int width>
__device__ inline void produce(const Prompt& a, const Place& place, int kv_head, int dim,
                               const Ring<format, width>& ring) {
  using L = Layout<format, width>;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int block_bytes = tile_keys * dim * element_bytes(format);
  const int last = place.sequence.first_position + place.sequence.rows - 1;
  const int end_slot = last - (place.tiles - 1) * tile_keys + 1;  // of the last tile
  for (int i = 0; i < 2 * place.tiles; ++i) {
    const Item item = item_at(i, place.tiles);
    const std::byte* const from = source<format>(a, place, kv_head, block_bytes, item);
    ring.wait_empty(i);
    const bool cut = item.values && item.tile == place.tiles - 1 && end_slot < tile_keys;
    const uint32_t full = ring.full + i % L::slots * 8;
    const uint32_t barrier = cut ? ring.cut : full;
    if (lane == 0) {
      barrier_expect(barrier, block_bytes);
      bulk_copy(ring.slot(i), from, block_bytes, barrier);
    }
    if (!cut) continue;
    barrier_wait(barrier, 0);
    erase_behind<format>(ring.data + i % L::slots * L::slot_bytes, dim, end_slot);
    publish_writes();
    __syncwarp();
    if (lane == 0) barrier_arrive(full);
  }
}

}  // namespace qnext::ops::cuda
