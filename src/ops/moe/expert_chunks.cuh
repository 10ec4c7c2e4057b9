// How a warp streams packed weights: chunks of up to four tiles (16 rows x 256 columns) through a
// ring of its own in shared memory, and what it does with one.
//
// A warp that fills and empties its own ring needs no word from any other warp: the order of its
// own program says when a slot is free. Four tiles make copies of 2 to 8 KB and four sums that do
// not wait for each other; with two tiles the work around a chunk took as long as the chunk.
#pragma once

#include <cstdint>

#include "ops/activation/activation_device.h"
#include "ops/matmul/packed_tile.cuh"
#include "ops/sm90/small_copies.cuh"

namespace qnext::ops::cuda {

constexpr int expert_warps = 8;
constexpr int expert_threads = expert_warps * warp_lanes;
constexpr int chunk_tiles = 4;

// The B fragments of 8 rows of x for one chunk: [tile][2 step + half].
using RowFragments = Pair[chunk_tiles][8];

// A warp's ring. issue() (or issue_nothing()) once for each slot to fill it, then for every chunk:
// wait(), read, and issue() again. All lanes call all of it together.
//
// 64 to 72 KB a block, so that two blocks of the same kernel share an SM: with one, 2 warps a
// scheduler wait for their own instructions most of the time. Memory needs 40 KB an SM on their way
// to be busy (4.45 TB/s x 1.2 us / 132 SMs).
template <PackedFormat format>
class ChunkRing {
 public:
  static constexpr int chunk_bytes = chunk_tiles * static_cast<int>(tile_bytes(format));
  static constexpr int depth = format == PackedFormat::bf16 ? 1
                               : format == PackedFormat::f8 ? 2
                                                            : 4;
  static constexpr bool scaled = format == PackedFormat::f8;

  struct alignas(128) Memory {
    std::byte data[depth][chunk_bytes];
    float4 scale[depth];
    sm90::Barrier full[depth];
  };

  __device__ explicit ChunkRing(Memory& memory) : memory_(memory), lane_(threadIdx.x % warp_lanes) {
    if (lane_ == 0) {
      for (int i = 0; i < depth; ++i) sm90::set_up(&memory.full[i], 1);
      sm90::publish_barriers();
    }
    __syncwarp();
  }

  // Into the slot that was read last. again: others read the same chunk soon.
  __device__ void issue(const std::byte* chunk, int tiles, const float* scale, bool again) {
    __syncwarp();
    if (lane_ == 0) {
      const auto bytes = static_cast<uint32_t>(tiles * tile_bytes(format));
      sm90::arrive_expecting(&memory_.full[next_], bytes);
      sm90::bulk_copy(memory_.data[next_], chunk, bytes, &memory_.full[next_],
                      again ? sm90::read_again() : sm90::read_once());
    }
    // A pair of scales for every two tiles.
    if (scaled && 2 * lane_ < tiles)
      sm90::copy_eight(reinterpret_cast<float2*>(&memory_.scale[next_]) + lane_, scale + 2 * lane_);
    close();
  }
  __device__ void issue_nothing() { close(); }

  // The oldest chunk, here and readable until the next issue(). full: no slot is free, so that of
  // the groups of small copies the oldest one of `depth` is wanted.
  __device__ const std::byte* wait(float4& scale, bool full = true) {
    if constexpr (scaled) {
      if (full)
        sm90::wait_for_copies<depth - 1>();
      else
        sm90::wait_for_copies<0>();
    }
    sm90::wait(&memory_.full[oldest_], parity_);
    if constexpr (scaled) {
      __syncwarp();
      scale = memory_.scale[oldest_];
    }
    const std::byte* data = memory_.data[oldest_];
    if (++oldest_ == depth) {
      oldest_ = 0;
      parity_ ^= 1;
    }
    return data;
  }

 private:
  __device__ void close() {
    if constexpr (scaled) sm90::close_copies();
    if (++next_ == depth) next_ = 0;
  }

  Memory& memory_;
  int lane_;
  int next_ = 0, oldest_ = 0;
  uint32_t parity_ = 0;
};

template <PackedFormat format>
__device__ inline void multiply_tile(const std::byte* tile, const Pair (&b)[8], float (&c)[4]) {
  LaneTile<format> weights;
  weights.load(tile, static_cast<int>(threadIdx.x) % warp_lanes);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    Pair a[4];
    weights.fragment(step, a);
    multiply_add(c, a, b[2 * step], b[2 * step + 1]);
  }
}

// sum += the chunk's 16 rows times 8 rows of x. The chunk's own sum: each tile in steps of 16
// columns; first plus second, third plus fourth, each times its scale; the two together.
template <PackedFormat format>
__device__ inline void add_chunk(const std::byte* chunk, int tiles, const float4& scale,
                                 const RowFragments& b, float (&sum)[4]) {
  float c[chunk_tiles][4] = {};
  if (tiles == chunk_tiles) {
    // No branch between the tiles: their sums proceed side by side.
#pragma unroll
    for (int tile = 0; tile < chunk_tiles; ++tile)
      multiply_tile<format>(chunk + tile * tile_bytes(format), b[tile], c[tile]);
  } else {
#pragma unroll
    for (int tile = 0; tile < chunk_tiles - 1; ++tile)
      if (tile < tiles) multiply_tile<format>(chunk + tile * tile_bytes(format), b[tile], c[tile]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float first = c[0][i] + c[1][i], second = c[2][i] + c[3][i];
    if constexpr (format == PackedFormat::f8) {
      first *= i < 2 ? scale.x : scale.y;
      // Where there is no third tile there is no scale.
      second = tiles > 2 ? second * (i < 2 ? scale.z : scale.w) : 0.0f;
    }
    sum[i] += first + second;
  }
}

}  // namespace qnext::ops::cuda
