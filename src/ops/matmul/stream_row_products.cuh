// What a warp of stream_row_sm90.cu does with a run of 128 columns.
#pragma once

#include "ops/matmul/half_row.cuh"
#include "ops/matmul/stream_row_pieces.cuh"
#include "ops/matmul/stream_tile.cuh"

namespace qnext::ops::cuda::row_products {

using few_rows::add_tile;

// A lane's part of the row for a run, and a whole run's sum. All loads come first: there are too
// few warps to hide one behind the other. f8: of the row in f16.
struct RunFragments {
  uint4 words[run_tiles][2];

  __device__ void load(const std::byte* x) {
#pragma unroll
    for (int tile = 0; tile < run_tiles; ++tile)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        words[tile][i] = reinterpret_cast<const uint4*>(x + tile * 128)[i];
  }
  __device__ void make_halves() {
#pragma unroll
    for (int tile = 0; tile < run_tiles; ++tile)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        uint4& of = words[tile][i];
        of = {scaled_halves(of.x), scaled_halves(of.y), scaled_halves(of.z), scaled_halves(of.w)};
      }
  }
};
template <PackedFormat format>
__device__ inline void add_whole_run(float (&c)[4], const std::byte* data, const RunFragments& b,
                                     int lane) {
  LaneTile<format> weights[run_tiles];
#pragma unroll
  for (int tile = 0; tile < run_tiles; ++tile)
    weights[tile].load(data + tile * tile_bytes(format), lane);
#pragma unroll
  for (int tile = 0; tile < run_tiles; ++tile)
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const uint4& words = b.words[tile][step / 2];
      const Pair b0 = step % 2 == 0 ? words.x : words.z, b1 = step % 2 == 0 ? words.y : words.w;
      add_step<format, format == PackedFormat::f8>(c, weights[tile], step, b0, b1);
    }
}

template <PackedFormat format>
__device__ inline void add_run(float (&c)[4], const std::byte* data, const std::byte* x, int tiles,
                               int lane) {
  constexpr int bytes = static_cast<int>(tile_bytes(format));
#pragma unroll
  for (int tile = 0; tile < run_tiles; ++tile)
    if (tile < tiles) add_tile<format>(c, data + tile * bytes, x + tile * 128, lane);
}

}  // namespace qnext::ops::cuda::row_products
