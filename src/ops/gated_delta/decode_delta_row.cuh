// Private to the three kernels behind decode_delta(): one row's step of the delta rule on 32
// columns of one head's S, which 128 threads hold in registers (256 in decode_delta_lone_cuda.cu,
// two columns each). All take these steps in the same order, so a row's bits do not tell which ran.
//
// Thread `part` of 16 by quad of 8 has four columns of every 16th row of S. Both sums over S of a
// row, k^T S and q^T S, are taken of the old S at once, for q^T S+ = exp(g) q^T S + (q . k) change.
#pragma once

#include "ops/gated_delta/decode_delta_cuda.h"
#include "ops/gated_delta/delta_channel.cuh"

namespace qnext::ops::cuda {

constexpr int slice_threads = 128;
constexpr int slice_warps = slice_threads / warp_lanes;
constexpr int slice_columns = 32;
constexpr int quads = slice_columns / 4;          // a thread has four columns ...
constexpr int row_parts = slice_threads / quads;  // ... of every 16th row

struct DeltaArguments {
  Batch batch;
  DeltaLayer layer;
  DeltaSizes sizes;
  DeltaRows rows;
  States conv_states;
  DeltaStates states;
  bool states_at_rest;
  Bf16* out;
  int64_t out_stride;
  int keys_a_block;  // of a key head's q and k: a share of those whose inputs are kept
};

// One row in all, of the usual head size: decode_delta_lone_cuda.cu.
bool decode_delta_lone_takes(const DeltaSizes& sizes, const Batch& batch);
void decode_delta_lone(cudaStream_t stream, const DeltaArguments& arguments);
// Many sequences of the usual head sizes: decode_delta_many_cuda.cu.
bool decode_delta_many_takes(const DeltaSizes& sizes, const Batch& batch);
void decode_delta_many(cudaStream_t stream, const DeltaArguments& arguments);

__device__ inline float4 load_state(const float* at) {
  return *reinterpret_cast<const float4*>(at);
}
__device__ inline float4 load_state(const Bf16* at) {
  const ushort4 raw = *reinterpret_cast<const ushort4*>(at);
  return {widen(raw.x), widen(raw.y), widen(raw.z), widen(raw.w)};
}
__device__ inline void store_state(float* at, const float4& s) {
  *reinterpret_cast<float4*>(at) = s;
}
__device__ inline void store_state(Bf16* at, const float4& s) {
  *reinterpret_cast<ushort4*>(at) = {narrow(s.x), narrow(s.y), narrow(s.z), narrow(s.w)};
}
// What a later load_state would give.
__device__ inline void as_stored(float4&, float) {}
__device__ inline void as_stored(float4& s, Bf16) {
  s = {widen(narrow(s.x)), widen(narrow(s.y)), widen(narrow(s.z)), widen(narrow(s.w))};
}

__device__ inline float4 warp_sums(float x, float y, float z) {
#pragma unroll
  for (int distance = warp_lanes / 2; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(whole_warp, x, distance);
    y += __shfl_xor_sync(whole_warp, y, distance);
    z += __shfl_xor_sync(whole_warp, z, distance);
  }
  return {x, y, z, 0};
}

// s += factor * x and the like, a thread's four columns.
__device__ inline float4 add_product(float factor, const float4& x, const float4& s) {
  return {fmaf(factor, x.x, s.x), fmaf(factor, x.y, s.y), fmaf(factor, x.z, s.z),
          fmaf(factor, x.w, s.w)};
}
__device__ inline float4 sum_over_lanes(float4 x, int distance) {
  return {x.x + __shfl_xor_sync(whole_warp, x.x, distance),
          x.y + __shfl_xor_sync(whole_warp, x.y, distance),
          x.z + __shfl_xor_sync(whole_warp, x.z, distance),
          x.w + __shfl_xor_sync(whole_warp, x.w, distance)};
}

// A warp's sums over its rows of S: sums[0] of k^T S, sums[1] of q^T S. keys: (k, q) of every row.
template <int depth>
__device__ inline void recall(const float4 (&s)[depth], const float2* keys, int part,
                              float (*sums)[slice_columns]) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  float4 ks{0, 0, 0, 0}, qs{0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < depth; ++i) {
    const float2 at = keys[part + i * row_parts];
    ks = add_product(at.x, s[i], ks);
    qs = add_product(at.y, s[i], qs);
  }
  // The warp's upper lanes go on with q^T S, the lower ones with k^T S.
  const bool upper = lane >= warp_lanes / 2;
  const float4 other = upper ? ks : qs;
  float4 mine = upper ? qs : ks;
  mine.x += __shfl_xor_sync(whole_warp, other.x, 16);
  mine.y += __shfl_xor_sync(whole_warp, other.y, 16);
  mine.z += __shfl_xor_sync(whole_warp, other.z, 16);
  mine.w += __shfl_xor_sync(whole_warp, other.w, 16);
  mine = sum_over_lanes(mine, 8);
  if (lane % 16 < quads)
    *reinterpret_cast<float4*>(&sums[upper ? 1 : 0][4 * (lane % quads)]) = mine;
}

// Column `lane` of k^T S (which 0) or q^T S (1), from the sums of a slice's warps.
__device__ inline float recalled(const float (*of_warp)[2][slice_columns], int which, int lane) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < slice_warps; ++i) sum += of_warp[i][which][lane];
  return sum;
}

// q.q, k.k and q.k, from the sums of the warps that have the keys.
__device__ inline float4 sum_products(const float4 (&of_warp)[slice_warps]) {
  float4 sum{0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < slice_warps; ++i) {
    sum.x += of_warp[i].x;
    sum.y += of_warp[i].y;
    sum.z += of_warp[i].z;
  }
  return sum;
}

// S = exp(g) S + k change. change: of column `lane`.
template <int depth, typename State>
__device__ inline void take_in(float4 (&s)[depth], const float2* keys, int part, float decay,
                               float change, State) {
  const int quad = static_cast<int>(threadIdx.x) % quads;
  const float4 added{
      __shfl_sync(whole_warp, change, 4 * quad), __shfl_sync(whole_warp, change, 4 * quad + 1),
      __shfl_sync(whole_warp, change, 4 * quad + 2), __shfl_sync(whole_warp, change, 4 * quad + 3)};
#pragma unroll
  for (int i = 0; i < depth; ++i) {
    const float k_i = keys[part + i * row_parts].x;
    s[i] =
        add_product(k_i, added, {decay * s[i].x, decay * s[i].y, decay * s[i].z, decay * s[i].w});
    as_stored(s[i], State{});
  }
}

}  // namespace qnext::ops::cuda
