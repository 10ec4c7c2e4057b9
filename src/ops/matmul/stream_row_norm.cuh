// One row of up to 2048 columns on its way into shared memory, for stream_row_sm90.cu: everything
// between the wait and the first product is time that memory may idle.
#pragma once

#include "ops/matmul/stream_rows.cuh"

namespace qnext::ops::cuda {

// A norm in the order of row_norm.cuh. The first norm_floats threads sum the squares, two float4s
// each; those behind them fetch the second ones too, so that a thread norms one: the block has a
// thread for each float4 of the row, zeros behind it included. The row is read past the first-level
// cache, which nobody reads it from again.
struct RowNorm {
  static constexpr int most_columns = 2 * 4 * norm_floats;
  float4 x[2], weight;

  // columns: a multiple of 4.
  __device__ void fetch(const StreamInput& in, int columns) {
    const auto thread = static_cast<int>(threadIdx.x);
    const int second = thread < norm_floats ? thread + norm_floats : thread;
    const auto* const row = reinterpret_cast<const float4*>(in.residual);
    x[0] = x[1] = weight = {0, 0, 0, 0};
    if (thread < norm_floats && 4 * thread < columns) x[0] = __ldcg(row + thread);
    if (4 * second < columns) x[1] = __ldcg(row + second);
    if (4 * thread < columns) weight = reinterpret_cast<const float4*>(in.norm_weight)[thread];
  }

  // write: to in.normed too. also(offset, pair): for every pair that is stored, where it lies in a
  // staged row.
  template <typename Also>
  __device__ void stage(const StreamInput& in, const StagedRows& staged, bool write,
                        Also&& also) const {
    const auto thread = static_cast<int>(threadIdx.x);
    if (thread < norm_floats) {
      float sum = 0;
      add_squares(sum, x[0]);
      add_squares(sum, x[1]);
      staged.norm[thread] = sum;
    }
    __syncthreads();
    const float scale = shared_norm_scale(staged.norm, staged.columns, in.eps);
    if (thread < staged.column_tiles * 16) {
      const bool first_half = thread < norm_floats;
      const float4 v{first_half ? x[0].x : x[1].x, first_half ? x[0].y : x[1].y,
                     first_half ? x[0].z : x[1].z, first_half ? x[0].w : x[1].w};
      const uint2 pairs = normed_pairs(v, scale, weight);
      if (write && 4 * thread < staged.columns)
        *reinterpret_cast<uint2*>(in.normed + 4 * thread) = pairs;
      stage_pairs(staged.x, thread, pairs);
      also(staged_at(thread), pairs.x);
      also(staged_at(thread) + 32, pairs.y);
    }
  }
};

// The bf16 rows of stage_values(), up to `rows`, a chunk of all of them at once.
template <int rows, typename Also>
__device__ inline void stage_chunks(const StreamInput& in, const StagedRows& staged, Also&& also) {
  const int chunks = staged.column_tiles * 8;
  for (int chunk = static_cast<int>(threadIdx.x); chunk < chunks;
       chunk += static_cast<int>(blockDim.x)) {
    uint4 v[rows];
#pragma unroll
    for (int row = 0; row < rows; ++row)
      if (row < staged.rows)
        v[row] = __ldcg(reinterpret_cast<const uint4*>(in.values + row * in.stride) + chunk);
    const int offset = chunk / 8 * 128 + chunk % 8 * 4;
#pragma unroll
    for (int row = 0; row < rows; ++row) {
      if (row >= staged.rows) continue;
      store_chunk(staged.x + row * staged.stride, chunk, {v[row].x, v[row].y, v[row].z, v[row].w});
      also(offset, v[row].x);
      also(offset + 32, v[row].y);
      also(offset + 64, v[row].z);
      also(offset + 96, v[row].w);
    }
  }
}

}  // namespace qnext::ops::cuda
