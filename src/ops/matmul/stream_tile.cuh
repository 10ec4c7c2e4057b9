// What a warp does with one tile of streamed weights.
#pragma once

#include "ops/matmul/stream_matmul.cuh"

namespace qnext::ops::cuda::few_rows {

// One tile's share of a run's sum. x: this lane's part of the tile's first step.
template <PackedFormat format>
__device__ inline void add_tile(float (&c)[4], const std::byte* data, const std::byte* x,
                                int lane) {
  LaneTile<format> tile;
  tile.load(data, lane);
  const uint4 b[2] = {reinterpret_cast<const uint4*>(x)[0], reinterpret_cast<const uint4*>(x)[1]};
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    Pair a[4];
    tile.fragment(step, a);
    const uint4& words = b[step / 2];
    multiply_add(c, a, step % 2 == 0 ? words.x : words.z, step % 2 == 0 ? words.y : words.w);
  }
}

}  // namespace qnext::ops::cuda::few_rows
