// What the two fast forms of a Gated DeltaNet mixer share: the layer's weights, the projected rows,
// the recurrent states. Between the projections and out_proj one call does everything:
//
//   ungroup, depthwise causal convolution (width <= 4) and silu, l2 norms of q and k, the gates
//   beta = sigmoid(b) and g = -exp(A_log) softplus(a + dt_bias), the delta rule (gated_delta.h),
//   out = norm(o) * weight * silu(z)  with  norm(o) = o * rsqrt(mean(o^2) + eps) per value head.
//
// decode_delta_cuda.h takes few rows a sequence (answer form), chunked_delta_cuda.h many (prompt
// form). Both keep S and the convolution's state in the same slots (ops/batch_cuda.h), so a
// sequence may go from one form to the other at any row.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/batch_cuda.h"
#include "ops/gated_delta/gated_delta.h"
#include "ops/matmul/packed_matrix_cuda.h"

namespace qnext::ops::cuda {

// Weights in fp32. Channels of the convolution: all q, all k, all v.
struct DeltaLayer {
  GatedDeltaShape shape;
  int64_t conv_width = 4;
  const float* conv_weight = nullptr;  // [channels, conv_width]
  const float* a_log = nullptr;        // [value_heads]
  const float* dt_bias = nullptr;      // [value_heads]
  const float* norm_weight = nullptr;  // [value_dim]
  float eps = 1e-6f;

  constexpr int64_t group() const { return shape.value_heads / shape.key_heads; }
  constexpr int64_t key_width() const { return shape.key_heads * shape.key_dim; }
  constexpr int64_t channels() const { return 2 * key_width() + value_width(); }
  constexpr int64_t value_width() const { return shape.value_heads * shape.value_dim; }
  // Columns of qkvz that belong to one key head.
  constexpr int64_t group_width() const { return 2 * (shape.key_dim + group() * shape.value_dim); }
};

// Both grouped by key head, r = value_heads / key_heads:
//   qkvz [rows, key_heads, q[key_dim] k[key_dim] v[r * value_dim] z[r * value_dim]] bf16
//   ba   [rows, key_heads, b[r] a[r]] fp32
// Strides in elements; qkvz is 16-byte aligned and its stride a multiple of 8.
struct DeltaRows {
  const Bf16* qkvz = nullptr;
  int64_t qkvz_stride = 0;
  const float* ba = nullptr;
  int64_t ba_stride = 0;
};

enum class StateFormat { f32, bf16 };

// S of all slots: slot s at base + s * stride, both in elements of the format:
// [value_heads, key_dim, value_dim]. base and stride are aligned to 16 bytes. The states of
// the convolution are States of causal_conv_cuda.h: fp32 [conv_width - 1, channels], oldest first.
struct DeltaStates {
  void* base = nullptr;
  int64_t stride = 0;
  StateFormat format = StateFormat::f32;
};

}  // namespace qnext::ops::cuda
