// Few rows on their way into shared memory: copied, or normed.
#pragma once

#include "ops/bf16_pair.cuh"
#include "ops/matmul/stream_matmul_cuda.h"
#include "ops/rms_norm/row_norm.cuh"

namespace qnext::ops::cuda {

constexpr int norm_floats = norm_runs * warp_lanes;

struct StagedRows {
  std::byte* x;  // [rows][stride], in the order of B fragments
  float* norm;   // [norm_floats], or for each row so many, for the norm
  int stride;    // bytes
  int rows;
  int column_tiles;
  int64_t columns;
};

// Pair t of 8 columns: lane t of a B fragment reads its words of a tile's 4 steps side by side.
__device__ inline void store_chunk(std::byte* row, int chunk, const uint32_t (&pairs)[4]) {
  std::byte* to = row + chunk / 8 * 128 + chunk % 8 * 4;
#pragma unroll
  for (int t = 0; t < 4; ++t) *reinterpret_cast<uint32_t*>(to + 32 * t) = pairs[t];
}

// So many chunks a thread has on their way at once: their latency is paid once.
constexpr int chunks_in_flight = 4;

__device__ inline void stage_values(const StreamInput& in, const StagedRows& staged) {
  const int chunks = staged.column_tiles * 8;
#pragma unroll 1
  for (int chunk = static_cast<int>(threadIdx.x); chunk < chunks;
       chunk += static_cast<int>(blockDim.x)) {
#pragma unroll 1
    for (int first = 0; first < staged.rows; first += chunks_in_flight) {
      uint4 v[chunks_in_flight];
#pragma unroll
      for (int i = 0; i < chunks_in_flight; ++i)
        if (first + i < staged.rows)
          v[i] = *reinterpret_cast<const uint4*>(in.values + (first + i) * in.stride + 8 * chunk);
#pragma unroll
      for (int i = 0; i < chunks_in_flight; ++i)
        if (first + i < staged.rows)
          store_chunk(staged.x + (first + i) * staged.stride, chunk,
                      {v[i].x, v[i].y, v[i].z, v[i].w});
    }
  }
}

// Before the rows are there: the norm's weight, into the L2 cache.
__device__ inline void prefetch_norm_weight(const StreamInput& in, int64_t columns) {
  for (int64_t i = threadIdx.x * 32; i < columns; i += blockDim.x * 32)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(in.norm_weight + i));
}

// norm_scale() of a row whose sums of squares lie in shared memory, [norm_runs][warp_lanes].
__device__ inline float shared_norm_scale(const float* sums, int64_t columns, float eps) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  float runs[norm_runs];
#pragma unroll
  for (int run = 0; run < norm_runs; ++run) runs[run] = sums[run * warp_lanes + lane];
  return norm_scale(runs, columns, eps);
}

// Scales of all rows into staged.norm[row].
__device__ inline void find_norm_scales(const StreamInput& in, const StagedRows& staged) {
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int warps = static_cast<int>(blockDim.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  if (staged.rows == 1) {  // its runs shared out
    for (int run = warp; run < norm_runs; run += warps)
      staged.norm[run * warp_lanes + lane] = squares_of_run(in.residual, staged.columns, run, lane);
    __syncthreads();
    const float scale = shared_norm_scale(staged.norm, staged.columns, in.eps);
    __syncthreads();
    if (threadIdx.x == 0) staged.norm[0] = scale;
  } else {
    for (int row = warp; row < staged.rows; row += warps) {
      const float scale =
          row_norm_scale(in.residual + row * in.residual_stride, staged.columns, in.eps, lane);
      if (lane == 0) staged.norm[row] = scale;
    }
  }
  __syncthreads();
}

// 8 columns of a normed row, as bf16 pairs.
__device__ inline void norm_chunk(const float* x, const float* weight, float scale, int64_t column,
                                  int64_t columns, uint32_t (&pairs)[4]) {
  float values[8];
  if (column + 8 <= columns) {
#pragma unroll
    for (int half = 0; half < 8; half += 4) {
      const float4 v = *reinterpret_cast<const float4*>(x + column + half);
      const float4 w = *reinterpret_cast<const float4*>(weight + column + half);
      values[half] = normed(v.x, scale, w.x);
      values[half + 1] = normed(v.y, scale, w.y);
      values[half + 2] = normed(v.z, scale, w.z);
      values[half + 3] = normed(v.w, scale, w.w);
    }
  } else {
#pragma unroll
    for (int j = 0; j < 8; ++j)
      values[j] = column + j < columns ? normed(x[column + j], scale, weight[column + j]) : 0.0f;
  }
#pragma unroll
  for (int t = 0; t < 4; ++t) pairs[t] = bf16_pair(values[2 * t], values[2 * t + 1]);
}

// One chunk of a normed row, wherever it goes. write: to in.normed too.
__device__ inline void put_normed(const StreamInput& in, const StagedRows& staged, int row,
                                  int chunk, const uint32_t (&pairs)[4], bool write) {
  store_chunk(staged.x + row * staged.stride, chunk, pairs);
  const int64_t column = 8 * int64_t{chunk};
  if (!write || column >= staged.columns) return;
  Bf16* out = in.normed + row * in.normed_stride + column;
  if (column + 8 <= staged.columns) {
    *reinterpret_cast<uint4*>(out) = {pairs[0], pairs[1], pairs[2], pairs[3]};
  } else {
#pragma unroll
    for (int j = 0; j < 8; ++j)
      if (column + j < staged.columns) out[j] = static_cast<Bf16>(pairs[j / 2] >> (j % 2 * 16));
  }
}

__device__ inline void stage_normed(const StreamInput& in, const StagedRows& staged, bool write) {
  find_norm_scales(in, staged);
  const int chunks = staged.column_tiles * 8, all = staged.rows * chunks;
  for (int at = static_cast<int>(threadIdx.x); at < all; at += static_cast<int>(blockDim.x)) {
    const int row = at / chunks, chunk = at % chunks;
    uint32_t pairs[4];
    norm_chunk(in.residual + row * in.residual_stride, in.norm_weight, staged.norm[row],
               8 * int64_t{chunk}, staged.columns, pairs);
    put_normed(in, staged, row, chunk, pairs, write);
  }
}

// A float4 of a row behind its norm, as bf16: its two pairs.
__device__ inline uint2 normed_pairs(const float4& v, float scale, const float4& weight) {
  return {bf16_pair(normed(v.x, scale, weight.x), normed(v.y, scale, weight.y)),
          bf16_pair(normed(v.z, scale, weight.z), normed(v.w, scale, weight.w))};
}
// Where the first pair of a row's float4 `j` lies in a staged row, in bytes; the second one lies 32
// further.
__device__ inline int staged_at(int j) {
  return j / 16 * 128 + j / 2 % 8 * 4 + j % 2 * 64;
}
__device__ inline void stage_pairs(std::byte* row, int j, const uint2& pairs) {
  *reinterpret_cast<uint32_t*>(row + staged_at(j)) = pairs.x;
  *reinterpret_cast<uint32_t*>(row + staged_at(j) + 32) = pairs.y;
}
// The usual case of a norm, one row of up to 2048 columns, made short: everything between the wait
// and the first product is time that memory may idle. A thread loads the norm's weight before the
// wait and keeps its share of the row in registers. The block has norm_floats threads or more.
struct QuickNorm {
  static constexpr int shares = 2;
  float4 weight[shares];

  __device__ void load_weight(const StreamInput& in, const StagedRows& staged) {
#pragma unroll
    for (int i = 0; i < shares; ++i)
      if (const int j = at(i); mine() && 4 * j < staged.columns)
        weight[i] = reinterpret_cast<const float4*>(in.norm_weight)[j];
  }
  __device__ void stage(const StreamInput& in, const StagedRows& staged, bool write) const {
    float4 x[shares] = {};
    float sum = 0;
#pragma unroll
    for (int i = 0; i < shares; ++i)
      if (const int j = at(i); mine() && 4 * j < staged.columns)
        x[i] = __ldcg(reinterpret_cast<const float4*>(in.residual) + j);
#pragma unroll
    for (int i = 0; i < shares; ++i) add_squares(sum, x[i]);
    if (mine()) staged.norm[threadIdx.x] = sum;
    __syncthreads();
    const float scale = shared_norm_scale(staged.norm, staged.columns, in.eps);
#pragma unroll
    for (int i = 0; i < shares; ++i) {
      const int j = at(i);
      if (!mine() || j >= staged.column_tiles * 16) continue;
      uint2 pairs{};
      if (4 * j < staged.columns) {
        pairs = normed_pairs(x[i], scale, weight[i]);
        if (write) *reinterpret_cast<uint2*>(in.normed + 4 * j) = pairs;
      }
      stage_pairs(staged.x, j, pairs);
    }
  }

 private:
  static __device__ bool mine() {
    return threadIdx.x < norm_floats;
  }
  static __device__ int at(int i) {
    return static_cast<int>(threadIdx.x) + i * norm_floats;
  }
};

// The norm of rows of 2048 columns in the same spirit: four warps a row, two of its runs each, as
// many rows at once as the block has warps for. staged.norm: [rows][norm_floats].
struct RowsNorm {
  static constexpr int row_threads = norm_runs / 2 * warp_lanes;
  static constexpr int shares = 4;
  static constexpr int columns = 4 * shares * row_threads;

  static __device__ int at(int i) {
    return static_cast<int>(threadIdx.x) % row_threads + i * row_threads;
  }
  // Has barriers for all threads. weight(i): that of the float4 at(i), asked for behind a barrier.
  // also(pair): for every pair that is stored.
  template <typename Weight, typename Also>
  static __device__ void stage(const StreamInput& in, const StagedRows& staged, bool write,
                               Weight&& weight, Also&& also) {
    const int teams = static_cast<int>(blockDim.x) / row_threads;
    const int team = static_cast<int>(threadIdx.x) / row_threads;
#pragma unroll 1
    for (int first = 0; first < staged.rows; first += teams) {
      const int row = first + team;
      const bool there = team < teams && row < staged.rows;
      float4 x[shares];
#pragma unroll
      for (int i = 0; i < shares; ++i)
        x[i] =
            there ? __ldcg(reinterpret_cast<const float4*>(in.residual + row * in.residual_stride) +
                           at(i))
                  : float4{0, 0, 0, 0};
      float* const norm = staged.norm + row * norm_floats;
      if (there) {
        // Share i lies in run at(i) / 32 % 8.
        float sum[2] = {};
#pragma unroll
        for (int i = 0; i < shares; ++i) add_squares(sum[i % 2], x[i]);
        norm[at(0)] = sum[0];
        norm[at(1)] = sum[1];
      }
      __syncthreads();
      if (!there) continue;
      const float scale = shared_norm_scale(norm, columns, in.eps);
#pragma unroll
      for (int i = 0; i < shares; ++i) {
        const int j = at(i);
        const uint2 pairs = normed_pairs(x[i], scale, weight(i));
        if (write) *reinterpret_cast<uint2*>(in.normed + row * in.normed_stride + 4 * j) = pairs;
        stage_pairs(staged.x + row * staged.stride, j, pairs);
        also(pairs.x);
        also(pairs.y);
      }
    }
  }
};

}  // namespace qnext::ops::cuda
