// Private to the chunked delta rule: the small matrices of one chunk, by mma and substitution in
// shared memory. A strip is 16 rows, which one warp takes.
#pragma once

#include <cuda_bf16.h>

#include "ops/gated_delta/delta_chunks.cuh"

namespace qnext::ops::cuda {

constexpr int block = 16;  // rows of a strip, and of the inverse's blocks
constexpr int blocks = chunk_rows / block;

// Per value head; the factors leave with the head's tiles.
struct HeadScalars {
  float c[chunk_rows];
  float beta[chunk_rows];
  float kept[chunk_rows];  // exp(c_last - c_i) |k_i|^-1
};

// Rows [16 strip, 16 strip + 16) of X K^T, columns up to 16 strip + 15.
template <int key_dim>
__device__ void multiply_by_keys(uint32_t x, uint32_t k, int strip, float (&sums)[8][4]) {
  const int lane = threadIdx.x % warp_lanes;
  for (auto& sum : sums)
    for (float& s : sum) s = 0;
#pragma unroll
  for (int step = 0; step < key_dim; step += 16) {
    const uint32_t tile = static_cast<uint32_t>(step / tile_side * tile_size);
    const int column = step % tile_side;
    uint32_t a[4];
    load_matrices(a, x + tile + in_tile(block * strip + lane % 16, column + lane / 16 * 8));
#pragma unroll
    for (int p = 0; p < blocks; ++p) {
      if (p > strip) continue;
      uint32_t b[4];
      load_matrices(
          b, k + tile + in_tile(block * p + lane % 8 + lane / 16 * 8, column + lane / 8 % 2 * 8));
      multiply_add(sums[2 * p], a, b[0], b[1]);
      multiply_add(sums[2 * p + 1], a, b[2], b[3]);
    }
  }
}

// exp(c_i - c_j) where i >= j, else 1: only differences <= 0 are exponentiated.
__device__ inline float decay_between(float c_i, float c_j, bool in_order) {
  return quick_exp(in_order ? c_i - c_j : 0.0f);
}

// diag(beta) (K K^T . Gamma) below the diagonal, for substitution: block of rows b at b * 1024,
// there column m at 16 m, so that a column's 16 rows are neighbours.
__device__ inline void store_triangle(const float (&sums)[8][4], int strip,
                                      const HeadScalars& scalars, const float* norms,
                                      float* triangle) {
  const int lane = threadIdx.x % warp_lanes, first = lane / 4;
  float c[2], factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = block * strip + first + 8 * half;
    c[half] = scalars.c[i];
    factor[half] = scalars.beta[i] * norms[i];
  }
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    if (n > 2 * strip + 1) continue;
    const int j = 8 * n + lane % 4 * 2;
    const float2 c_j = *reinterpret_cast<const float2*>(&scalars.c[j]);
    const float2 norm = *reinterpret_cast<const float2*>(&norms[j]);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int half = e / 2, row = first + 8 * half;
      const bool below = block * strip + row > j + e % 2;
      const float t = factor[half] * (e % 2 == 0 ? norm.x : norm.y) * sums[n][e] *
                      decay_between(c[half], e % 2 == 0 ? c_j.x : c_j.y, below);
      if (below) triangle[block * (chunk_rows * strip + j + e % 2) + row] = t;
    }
  }
}

// tril(Q K^T) . Gamma.
__device__ inline void store_scores(const float (&sums)[8][4], int strip,
                                    const HeadScalars& scalars, const float* q_norms,
                                    const float* k_norms, char* tile) {
  const int lane = threadIdx.x % warp_lanes;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    if (n > 2 * strip + 1) continue;
    const int j = 8 * n + lane % 4 * 2;
    const float2 c_j = *reinterpret_cast<const float2*>(&scalars.c[j]);
    const float2 norm = *reinterpret_cast<const float2*>(&k_norms[j]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = block * strip + lane / 4 + 8 * half;
      const float c = scalars.c[i], factor = q_norms[i];
      const float left = factor * norm.x * sums[n][2 * half] * decay_between(c, c_j.x, i >= j);
      const float right = factor * norm.y * sums[n][2 * half + 1] * decay_between(c, c_j.y, i > j);
      *reinterpret_cast<uint32_t*>(tile + in_tile(i, j)) =
          bf16_pair(i >= j ? left : 0.0f, i > j ? right : 0.0f);
    }
  }
}

// x[i] -= value * column[i] for from < i < 8.
__device__ inline void subtract(float (&x)[8], int from, const float* column, float value) {
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    if (i + 3 <= from) continue;
    const float4 t = *reinterpret_cast<const float4*>(column + i);
    if (i > from) x[i] = fmaf(-t.x, value, x[i]);
    if (i + 1 > from) x[i + 1] = fmaf(-t.y, value, x[i + 1]);
    if (i + 2 > from) x[i + 2] = fmaf(-t.z, value, x[i + 2]);
    if (i + 3 > from) x[i + 3] = fmaf(-t.w, value, x[i + 3]);
  }
}

// (I + triangle)^-1 by four warps, in place: a warp has 16 columns, two threads a column (eight of
// a block's 16 rows each). A block's rows overwrite the block's triangle once all warps are through
// with it. Column j of the inverse is zero above row j, so a warp begins with its own block.
__device__ inline void invert(float* triangle, const HeadScalars& scalars, char* inverse,
                              char* scaled, int barrier) {
  const int lane = threadIdx.x % warp_lanes, part = lane / block;
  const int own = threadIdx.x / warp_lanes % blocks;
  const int j = block * own + lane % block;
  for (int b = 0; b < blocks; ++b) {
    float* const rows = triangle + b * block * chunk_rows;
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = block * b + 8 * part + i == j ? 1.0f : 0.0f;
    if (b >= own) {
#pragma unroll 4
      for (int m = block * own; m < block * b; ++m)
        subtract(x, -1, rows + m * block + 8 * part, triangle[m * chunk_rows + j]);
      // The diagonal block: the upper eight rows, what they take from the lower, the lower.
      const float* diagonal = rows + b * block * block;
#pragma unroll
      for (int m = 0; m < 7; ++m) subtract(x, m, diagonal + m * block, part == 0 ? x[m] : 0.0f);
#pragma unroll
      for (int m = 0; m < 8; ++m) {
        const float above = __shfl_sync(whole_warp, x[m], lane % block);
        subtract(x, -1, diagonal + m * block + 8, part == 0 ? 0.0f : above);
      }
#pragma unroll
      for (int m = 0; m < 7; ++m)
        subtract(x, m, diagonal + (8 + m) * block + 8, part == 0 ? 0.0f : x[m]);
    }
    float kept[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) kept[i] = scalars.kept[block * b + 8 * part + i];
    meet(barrier, blocks * warp_lanes);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = block * b + 8 * part + i;
      triangle[row * chunk_rows + j] = x[i];
      *reinterpret_cast<__nv_bfloat16*>(inverse + in_tile(row, j)) = __float2bfloat16_rn(x[i]);
      *reinterpret_cast<__nv_bfloat16*>(scaled + in_tile(row, j)) =
          __float2bfloat16_rn(x[i] * kept[i]);
    }
    __syncwarp();
  }
}

// b's fragments of rows [16 step, +16), columns [16 p, +16) of a tile.
__device__ inline void load_rows(uint32_t (&b)[4], uint32_t tile, int step, int p) {
  const int lane = threadIdx.x % warp_lanes;
  load_transposed(
      b, tile + in_tile(block * step + lane % 8 + lane / 8 % 2 * 8, block * p + lane / 16 * 8));
}

__device__ inline void store_strip(const float (&sums)[8][4], int strip, char* tile) {
  const int lane = threadIdx.x % warp_lanes;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; e += 2)
      *reinterpret_cast<uint32_t*>(
          tile + in_tile(block * strip + lane / 4 + e / 2 * 8, 8 * n + lane % 4 * 2)) =
          bf16_pair(sums[n][e], sums[n][e + 1]);
  }
}

// P = scores * inverse, 16 rows, in the scores' place.
__device__ inline void multiply_scores(char* scores, uint32_t inverse, int strip) {
  const int lane = threadIdx.x % warp_lanes;
  const uint32_t tile = shared_address(scores);
  float sums[8][4] = {};
#pragma unroll
  for (int step = 0; step < blocks; ++step) {
    if (step > strip) continue;
    uint32_t a[4];
    load_matrices(a, tile + in_tile(block * strip + lane % 16, block * step + lane / 16 * 8));
#pragma unroll
    for (int p = 0; p <= step; ++p) {
      uint32_t b[4];
      load_rows(b, inverse, step, p);
      multiply_add(sums[2 * p], a, b[0], b[1]);
      multiply_add(sums[2 * p + 1], a, b[2], b[3]);
    }
  }
  __syncwarp();
  store_strip(sums, strip, scores);
}

// G = K^T * scaled inverse, 16 rows (of key_dim).
__device__ inline void multiply_keys(uint32_t k, uint32_t scaled, int strip, char* g) {
  const int lane = threadIdx.x % warp_lanes;
  float sums[8][4] = {};
  const int column = block * strip;
  const uint32_t tile = k + static_cast<uint32_t>(column / tile_side * tile_size);
#pragma unroll
  for (int step = 0; step < blocks; ++step) {
    uint32_t a[4];
    load_transposed(a, tile + in_tile(block * step + lane % 8 + lane / 16 * 8,
                                      column % tile_side + lane / 8 % 2 * 8));
#pragma unroll
    for (int p = 0; p <= step; ++p) {
      uint32_t b[4];
      load_rows(b, scaled, step, p);
      multiply_add(sums[2 * p], a, b[0], b[1]);
      multiply_add(sums[2 * p + 1], a, b[2], b[3]);
    }
  }
  store_strip(sums, strip, g);
}

}  // namespace qnext::ops::cuda
