// Dot products of fp32 rows with stored weight rows, by one warp: the sum behind matmul and the
// experts.
//
// Lane l takes columns l * V .. l * V + V - 1 of every run of 32 * V columns in ascending order,
// then the lanes are added in a butterfly. V is 4 where rows are aligned for it, else 1: a property
// of the matrix, so a row's bits depend on nothing else.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "ops/activation/activation_device.h"
#include "ops/matmul/matmul.h"

namespace qnext::ops::cuda {

template <DType dtype>
struct Stored;
template <>
struct Stored<DType::f32> {
  using type = float;
  static __device__ float widen(float v) { return v; }
};
template <>
struct Stored<DType::f16> {
  using type = __half;
  static __device__ float widen(__half v) { return __half2float(v); }
};
template <>
struct Stored<DType::bf16> {
  using type = __nv_bfloat16;
  static __device__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
};
template <>
struct Stored<DType::f8_e4m3> {
  using type = __nv_fp8_e4m3;
  static __device__ float widen(__nv_fp8_e4m3 v) { return static_cast<float>(v); }
};

// V weights at once, widened.
template <DType dtype, int V>
__device__ void load_weights(const void* data, int64_t index, float (&w)[V]) {
  using T = typename Stored<dtype>::type;
  struct alignas(V * sizeof(T)) Pack {
    T values[V];
  };
  const Pack pack = *reinterpret_cast<const Pack*>(static_cast<const T*>(data) + index);
#pragma unroll
  for (int v = 0; v < V; ++v) w[v] = Stored<dtype>::widen(pack.values[v]);
}

template <int V>
__device__ void load_row(const float* x, float (&values)[V]) {
  struct alignas(V * sizeof(float)) Pack {
    float values[V];
  };
  const Pack pack = *reinterpret_cast<const Pack*>(x);
#pragma unroll
  for (int v = 0; v < V; ++v) values[v] = pack.values[v];
}

// sums[r][c] = x_r . w_(n0 + c), in every lane; rows or columns beyond their count repeat the last
// one, so that the warp stays together. x rows are x_stride floats apart.
template <DType dtype, int V, int R, int C>
__device__ void warp_dots(const WeightMatrix& w, int64_t n0, const float* x, int64_t x_stride,
                          int64_t rows, float (&sums)[R][C]) {
  const int64_t lane = threadIdx.x % warp_lanes;
  const int64_t scale_columns = (w.columns + 127) / 128;
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int c = 0; c < C; ++c) sums[r][c] = 0;
  for (int64_t k = lane * V; k < w.columns; k += warp_lanes * V) {
    float values[R][V];
#pragma unroll
    for (int r = 0; r < R; ++r)
      load_row<V>(x + (r < rows ? r : rows - 1) * x_stride + k, values[r]);
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int64_t n = n0 + c < w.rows ? n0 + c : w.rows - 1;
      float weights[V];
      load_weights<dtype, V>(w.data, n * w.columns + k, weights);
      if constexpr (dtype == DType::f8_e4m3) {
        const float scale = w.block_scales[n / 128 * scale_columns + k / 128];
#pragma unroll
        for (int v = 0; v < V; ++v) weights[v] *= scale;
      }
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int v = 0; v < V; ++v) sums[r][c] = fmaf(values[r][v], weights[v], sums[r][c]);
    }
  }
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int c = 0; c < C; ++c) sums[r][c] = warp_sum(sums[r][c]);
}

// One dot product, the type chosen as it runs: for experts that may differ in type.
inline __device__ float warp_dot(const WeightMatrix& w, int64_t n, const float* x) {
  float sum[1][1];
  const bool wide = w.columns % 4 == 0;
  const auto dot = [&]<DType dtype>() {
    if (wide)
      warp_dots<dtype, 4, 1, 1>(w, n, x, 0, 1, sum);
    else
      warp_dots<dtype, 1, 1, 1>(w, n, x, 0, 1, sum);
  };
  switch (w.dtype) {
    case DType::f32:
      dot.template operator()<DType::f32>();
      break;
    case DType::f16:
      dot.template operator()<DType::f16>();
      break;
    case DType::bf16:
      dot.template operator()<DType::bf16>();
      break;
    default:
      dot.template operator()<DType::f8_e4m3>();
  }
  return sum[0][0];
}

}  // namespace qnext::ops::cuda
