// Private to the fast forms of Gated DeltaNet: the layer's sizes as kernels want them, bf16, and
// one channel of the short convolution.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/activation/activation_device.h"
#include "ops/gated_delta/delta_layer_cuda.h"

namespace qnext::ops::cuda {

struct DeltaSizes {
  int group;  // value heads a key head
  int key_heads;
  int value_heads;
  int key_dim;
  int value_dim;
  int conv_width;
  int key_width;
  int channels;
  int group_width;

  explicit DeltaSizes(const DeltaLayer& layer)
      : group(static_cast<int>(layer.group())),
        key_heads(static_cast<int>(layer.shape.key_heads)),
        value_heads(static_cast<int>(layer.shape.value_heads)),
        key_dim(static_cast<int>(layer.shape.key_dim)),
        value_dim(static_cast<int>(layer.shape.value_dim)),
        conv_width(static_cast<int>(layer.conv_width)),
        key_width(static_cast<int>(layer.key_width())),
        channels(static_cast<int>(layer.channels())),
        group_width(static_cast<int>(layer.group_width())) {}
};

constexpr float l2_epsilon = 1e-6f;  // gated_delta.h
constexpr int most_past = 3;         // conv_width - 1 at most

__device__ inline float widen(Bf16 x) {
  return __uint_as_float(static_cast<uint32_t>(x) << 16);
}
// To nearest, ties to even.
__device__ inline Bf16 narrow(float x) {
  const uint32_t bits = __float_as_uint(x);
  return static_cast<Bf16>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// Quick versions of activation.h's functions, off by some 2^-21 of the value, where bf16 or a gate
// follows: the plain ones are a hundred instructions on the way of every row. Denormals count as 0.
__device__ inline float quick_exp(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
  return y;
}
__device__ inline float quick_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// exp(80) is far from overflow, and the result 0 for what follows.
__device__ inline float quick_sigmoid(float x) {
  return quick_reciprocal(1.0f + quick_exp(fminf(-x, 80.0f)));
}
__device__ inline float quick_silu(float x) {
  return x * quick_sigmoid(x);
}
__device__ inline float quick_softplus(float x) {
  const float e = quick_exp(-fabsf(x));
  // log1p: its series where 1 + e would lose digits.
  const float tail = e < 0.03125f ? e * fmaf(e, fmaf(e, 1.0f / 3, -0.5f), 1.0f) : __logf(1.0f + e);
  return fmaxf(x, 0.0f) + tail;
}

// One channel: its weights and last inputs, oldest first. A narrower convolution has zeros in
// front.
struct Channel {
  float weight[most_past + 1];
  float past[most_past];

  __device__ void load_weights(const DeltaLayer& layer, const DeltaSizes& sizes, int channel) {
    const float* w = layer.conv_weight + channel * sizes.conv_width;
    if (sizes.conv_width == 4) {
      const float4 all = *reinterpret_cast<const float4*>(w);
      weight[0] = all.x, weight[1] = all.y, weight[2] = all.z, weight[3] = all.w;
      return;
    }
#pragma unroll
    for (int j = 0; j <= most_past; ++j) {
      const int at = j - (most_past + 1 - sizes.conv_width);
      weight[j] = at >= 0 ? w[at] : 0.0f;
    }
  }
  // slot -1: zeros.
  __device__ void load_past(const DeltaSizes& sizes, const States& states, int32_t slot,
                            int channel) {
    const int missing = most_past + 1 - sizes.conv_width;
    const float* const at = states.base + slot * states.stride + channel;
#pragma unroll
    for (int j = 0; j < most_past; ++j)
      past[j] = slot >= 0 && j >= missing ? at[(j - missing) * sizes.channels] : 0.0f;
  }
  __device__ void store_past(const DeltaSizes& sizes, const States& states, int32_t slot,
                             int channel) const {
    const int missing = most_past + 1 - sizes.conv_width;
    float* const at = states.base + slot * states.stride + channel;
#pragma unroll
    for (int j = 0; j < most_past; ++j)
      if (j >= missing) at[(j - missing) * sizes.channels] = past[j];
  }
  __device__ void shift(float x) {
#pragma unroll
    for (int j = 0; j + 1 < most_past; ++j) past[j] = past[j + 1];
    past[most_past - 1] = x;
  }
  // The sum before the silu, in ascending order of time.
  __device__ float advance(float x) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < most_past; ++j) sum = fmaf(weight[j], past[j], sum);
    sum = fmaf(weight[most_past], x, sum);
    shift(x);
    return sum;
  }
};

}  // namespace qnext::ops::cuda
