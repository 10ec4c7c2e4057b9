// From the sums of a prompt tile (features x rows, prompt_pipeline.cuh) to rows in memory.
//
// A lane 4 g + t holds of block m (16 features from 16 (first strip + m)) features g and g + 8 of
// rows 8 j + 2 t and the next. Stores want runs of features: bf16 values are paired over the rows,
// turned as 8 x 8 matrices within the warp (movmatrix), so that lane 4 g + t holds features 2 t and
// 2 t + 1 of row 8 j + g, and lanes exchange until each has one run of 16 bytes. fp32 values are
// stored as they lie: 8 lanes write the 32 bytes of a sector.
#pragma once

#include "ops/bf16_pair.cuh"
#include "ops/matmul/prompt_pipeline.cuh"

namespace qnext::ops::cuda::prompt {

// Of an 8 x 8 matrix, lane 4 i + j holding row i, columns 2 j and 2 j + 1: the same of the
// transposed one.
__device__ inline Pair turned(Pair x) {
  Pair y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// Lane t of four has word t of four runs and gets run t.
__device__ inline uint4 exchanged(Pair x0, Pair x1, Pair x2, Pair x3) {
  const bool odd = threadIdx.x % 2 != 0, high = threadIdx.x % 4 >= 2;
  const Pair a = __shfl_xor_sync(whole_warp, odd ? x0 : x1, 1);
  const Pair b = __shfl_xor_sync(whole_warp, odd ? x2 : x3, 1);
  const Pair y0 = odd ? a : x0, y1 = odd ? x1 : a, y2 = odd ? b : x2, y3 = odd ? x3 : b;
  const Pair c = __shfl_xor_sync(whole_warp, high ? y0 : y2, 2);
  const Pair d = __shfl_xor_sync(whole_warp, high ? y1 : y3, 2);
  return high ? uint4{c, d, y2, y3} : uint4{y0, y1, c, d};
}

// to[0 .. count) of the 8 values in `run`: the rare way.
__device__ __noinline__ inline void store_some(Bf16* to, uint4 run, int count) {
  const Pair words[4] = {run.x, run.y, run.z, run.w};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (i < count) to[i] = static_cast<Bf16>(words[i / 2] >> (16 * (i % 2)));
}

// Row 8 j + g of the tile goes to row row_at(j) of y (negative: nowhere). feature: the first of the
// warp's 32; features: the matrix's. whole: y's rows are aligned for stores of 8.
template <int N, typename RowAt>
__device__ void store_bf16(const float (&sum)[blocks_a_thread][N / 2], Bf16* y, int64_t stride,
                           int64_t feature, int64_t features, bool whole, RowAt row_at) {
  static_assert(blocks_a_thread == 2, "32 features are four runs of 8, one for each of four lanes");
  const int64_t own = feature + 8 * (threadIdx.x % 4);
  const bool fast = whole && own + 8 <= features;
  y += own;
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    Pair run[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const float* values = sum[q / 2] + 4 * j + 2 * (q % 2);
      run[q] = turned(bf16_pair(values[0], values[1]));
    }
    const uint4 mine = exchanged(run[0], run[1], run[2], run[3]);
    const int row = row_at(j);
    if (row < 0) continue;
    Bf16* to = y + row * stride;
    if (fast)
      *reinterpret_cast<uint4*>(to) = mine;
    else
      store_some(to, mine, static_cast<int>(features - own));
    asm volatile("" ::: "memory");  // one j after the other: together they would need too much
  }
}

// A lane's 8 values of rows 8 j + 2 t and the next, features g, g + 8, g + 16 and g + 24.
struct Corner {
  float even[4], odd[4];
};

// y[row, feature] = or += the sum. y: row 0 of the tile; rows: how many of it there are.
template <int N, bool add>
__device__ void store_fp32(const float (&sum)[blocks_a_thread][N / 2], float* y, int64_t stride,
                           int rows, int64_t feature, int64_t features) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  y += lane % 4 * 2 * stride + feature + lane / 4;
  rows -= lane % 4 * 2;
  // Of the lane's features, 8 apart, so many are the matrix's.
  const auto own = static_cast<int>(min((features - feature - lane / 4 + 7) / 8, int64_t{4}));
  // What is there is asked for so many j ahead; more finds no registers.
  constexpr int ahead = !add ? 0 : N > 128 ? 1 : 3;
  Corner before[ahead + 1];
  const float* from = y;
  int rows_there = rows;
  const auto load = [&](int j) {
    Corner& corner = before[j % (ahead + 1)];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (rows_there > 0 && i < own) corner.even[i] = from[8 * i];
      if (rows_there > 1 && i < own) corner.odd[i] = from[stride + 8 * i];
    }
    from += 8 * stride;
    rows_there -= 8;
  };
#pragma unroll
  for (int j = 0; j < ahead; ++j) load(j);
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    if (add && j + ahead < N / 8) load(j + ahead);
    const Corner& corner = before[j % (ahead + 1)];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* values = sum[i / 2] + 4 * j + 2 * (i % 2);
      if (rows > 0 && i < own) y[8 * i] = add ? corner.even[i] + values[0] : values[0];
      if (rows > 1 && i < own) y[stride + 8 * i] = add ? corner.odd[i] + values[1] : values[1];
    }
    y += 8 * stride;
    rows -= 8;
    // One j after the other: the addresses of all together would need too many registers.
    asm volatile("" : "+l"(y), "+l"(from), "+r"(rows), "+r"(rows_there)::"memory");
  }
}

}  // namespace qnext::ops::cuda::prompt
