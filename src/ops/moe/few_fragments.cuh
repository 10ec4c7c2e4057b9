// A few rows on their way into the registers of the warps that multiply: a warp keeps the fragments
// of its chunk of four tiles (256 columns) from end to end. They pass through shared memory, as a
// row comes in pieces of 16 bytes a lane and is wanted in pairs.
#pragma once

#include "ops/matmul/half_row.cuh"
#include "ops/moe/expert_chunks.cuh"

namespace qnext::ops::cuda {

constexpr int few_columns = 8;                      // n of mma.m16n8k16
constexpr int few_chunk_bytes = chunk_tiles * 128;  // of a row

struct FewRows {
  const Bf16* values;  // 16-byte aligned rows
  int64_t stride;      // a multiple of 8
  int rows;
};

// Where 16 bytes of a row's chunk lie, in the order of B fragments; neighbouring rows share no
// banks.
__device__ inline int few_staged_at(int rows, int chunk, int row, int tile, int sixteen) {
  return (chunk * rows + row) * few_chunk_bytes + tile * 128 + (sixteen ^ (row & 1)) * 16;
}

// A warp: a chunk of the rows, 8 columns a lane. staged: few_chunk_bytes for each chunk and row.
__device__ inline void stage_few(const FewRows& from, std::byte* staged, int chunk,
                                 HalfCheck& check) {
  constexpr int at_once = 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 1
  for (int first = 0; first < from.rows; first += at_once) {
    uint4 v[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i)
      v[i] = first + i < from.rows
                 ? __ldcg(reinterpret_cast<const uint4*>(from.values + (first + i) * from.stride) +
                          chunk * 32 + lane)
                 : uint4{};
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (first + i >= from.rows) break;
      const Pair pairs[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        check.add(pairs[t]);
        const int at = few_staged_at(from.rows, chunk, first + i, lane / 8, 2 * t + lane % 8 / 4);
        *reinterpret_cast<Pair*>(staged + at + lane % 4 * 4) = pairs[t];
      }
    }
  }
}

// The fragments of a chunk; lanes without a row have zeros.
__device__ inline void load_few(int rows, const std::byte* staged, int chunk, RowFragments& b) {
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4;
#pragma unroll
  for (int tile = 0; tile < chunk_tiles; ++tile)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint4 words{};
      if (row < rows)
        words = *reinterpret_cast<const uint4*>(
            staged + few_staged_at(rows, chunk, row, tile, 2 * (lane % 4) + i));
      b[tile][4 * i] = words.x;
      b[tile][4 * i + 1] = words.y;
      b[tile][4 * i + 2] = words.z;
      b[tile][4 * i + 3] = words.w;
    }
}

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
