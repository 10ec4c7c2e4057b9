// What a warp does with a chunk of four tiles (256 columns) for a few rows at once.
#pragma once

#include "ops/matmul/half_row.cuh"
#include "ops/moe/expert_chunks.cuh"

namespace qnext::ops::cuda {

constexpr int few_columns = 8;  // n of mma.m16n8k16

// As f16, where HalfCheck allows.
__device__ inline void make_halves(RowFragments& b) {
#pragma unroll
  for (int tile = 0; tile < chunk_tiles; ++tile)
#pragma unroll
    for (int i = 0; i < 8; ++i) b[tile][i] = scaled_halves(b[tile][i]);
}

// sum = 16 outputs of a chunk of four tiles times 8 rows, in the order of add_chunk(). b: in f16
// with `halves` (f8). read(): called when the chunk has been read.
template <PackedFormat format, bool halves, typename Read>
__device__ inline void few_chunk_sum(const std::byte* chunk, const float4& scale,
                                     const RowFragments& b, float (&sum)[4], Read read) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  float c[chunk_tiles][4] = {};
  LaneTile<format> weights[chunk_tiles];
#pragma unroll
  for (int i = 0; i < chunk_tiles; ++i) weights[i].load(chunk + i * tile_bytes(format), lane);
  read();
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int i = 0; i < chunk_tiles; ++i)
      add_step<format, halves>(c[i], weights[i], step, b[i][2 * step], b[i][2 * step + 1]);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float first = c[0][i] + c[1][i], second = c[2][i] + c[3][i];
    if constexpr (halves) {
      first *= half_row_inverse;
      second *= half_row_inverse;
    }
    if constexpr (format == PackedFormat::q4) {
      first *= 1 / LaneTile<format>::small;
      second *= 1 / LaneTile<format>::small;
    }
    if constexpr (format == PackedFormat::f8) {
      first *= i < 2 ? scale.x : scale.y;
      second *= i < 2 ? scale.z : scale.w;
    }
    sum[i] = first + second;
  }
}

}  // namespace qnext::ops::cuda
