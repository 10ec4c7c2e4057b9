// How a warp makes a head of a row ready: the norm and rotation of a query or key, and where a
// cache entry goes. Lane l holds dimensions 8 l to 8 l + 7.
#pragma once

#include <type_traits>

#include "ops/activation/activation_device.h"
#include "ops/attention/paged_sm90.cuh"

namespace qnext::ops::cuda {

constexpr int lane_dims = 8;

__device__ inline void widen(const uint4& bits, float (&x)[lane_dims]) {
  const uint32_t words[] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < lane_dims / 2; ++i) {
    x[2 * i] = low_value(words[i]);
    x[2 * i + 1] = high_value(words[i]);
  }
}
__device__ inline uint4 narrow(const float (&x)[lane_dims]) {
  return {bf16_pair(x[0], x[1]), bf16_pair(x[2], x[3]), bf16_pair(x[4], x[5]),
          bf16_pair(x[6], x[7])};
}

// What a lane needs of a head's norm weight, which is aligned as float4.
__device__ inline void load_weight(const float* weight, int lane, int dim, float (&w)[lane_dims]) {
  const auto* const from = reinterpret_cast<const float4*>(weight) + lane * (lane_dims / 4);
#pragma unroll
  for (int i = 0; i < lane_dims / 4; ++i) {
    const float4 four = lane * lane_dims < dim ? from[i] : float4{-1, -1, -1, -1};
    w[4 * i] = 1.0f + four.x;
    w[4 * i + 1] = 1.0f + four.y;
    w[4 * i + 2] = 1.0f + four.z;
    w[4 * i + 3] = 1.0f + four.w;
  }
}

// The rotation of the dimensions of a lane; those behind it stay as they are.
struct Rotation {
  alignas(16) float c[lane_dims], s[lane_dims];
  __device__ void load(const PagedProjections& from, int64_t row, int lane) {
    const auto half = static_cast<int>(from.half);
    const int first = lane * lane_dims;
    const float* const cosine = from.cosine + row * half;
    const float* const sine = from.sine + row * half;
    if (half % lane_dims == 0) {  // all of the lane's are in one half
      if (first >= 2 * half) return;
      load_lane(cosine, sine, half, first);
      return;
    }
#pragma unroll
    for (int i = 0; i < lane_dims; ++i) {
      const int d = first + i;
      if (d >= 2 * half) break;
      c[i] = cosine[d < half ? d : d - half];
      s[i] = d < half ? -sine[d] : sine[d - half];
    }
  }
  // Of the eight dimensions from `first` on, all in one half.
  __device__ void load_lane(const float* cosine, const float* sine, int half, int first) {
    const int at = first < half ? first : first - half;
#pragma unroll
    for (int i = 0; i < lane_dims; i += 4) {
      *reinterpret_cast<float4*>(c + i) = *reinterpret_cast<const float4*>(cosine + at + i);
      *reinterpret_cast<float4*>(s + i) = *reinterpret_cast<const float4*>(sine + at + i);
    }
#pragma unroll
    for (int i = 0; i < lane_dims; ++i) s[i] = first < half ? -s[i] : s[i];
  }
  // A dimension with the one of the other half that is turned with it.
  __device__ float turned(int i, float x, float partner) const {
    return x * c[i] + partner * s[i];
  }
};

// The norm in three steps, so that one warp's heads can take them side by side.
__device__ inline float lane_squares(const float (&x)[lane_dims]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < lane_dims; ++i) sum = fmaf(x[i], x[i], sum);
  return sum;
}
// squares: of the whole head.
__device__ inline float norm_factor(float squares, int dim, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(dim) + eps);
}
__device__ inline void scale_head(float (&x)[lane_dims], float factor,
                                  const float (&w)[lane_dims]) {
#pragma unroll
  for (int i = 0; i < lane_dims; ++i) x[i] = x[i] * factor * w[i];
}

// Eight dimensions as the cache holds them.
template <KvFormat format>
using Cached = std::conditional_t<format == KvFormat::bf16, uint4, uint2>;
template <KvFormat format>
__device__ Cached<format> cached(const float (&x)[lane_dims]) {
  if constexpr (format == KvFormat::bf16)
    return narrow(x);
  else
    return {f8_pair(x[0], x[1]) | f8_pair(x[2], x[3]) << 16,
            f8_pair(x[4], x[5]) | f8_pair(x[6], x[7]) << 16};
}

// To their place among the keys or values of a page, or of a part of it that begins at a multiple
// of 16 positions.
template <KvFormat format>
__device__ void store_key(std::byte* keys, unsigned slot, int dim, int lane,
                          const Cached<format>& x) {
  if constexpr (format == KvFormat::bf16) {
    const unsigned piece = slot / 8 * (dim / 8) + lane;
    *reinterpret_cast<uint4*>(keys + piece * 128 + slot % 8 * 16) = x;
  } else {
    const unsigned piece = slot / 8 * (dim / 16) + lane / 2;
    *reinterpret_cast<uint2*>(keys + piece * 128 + slot % 8 * 16 + lane % 2 * 8) = x;
  }
}
template <KvFormat format>
__device__ void store_value(std::byte* values, unsigned slot, int dim, int lane,
                            const Cached<format>& x) {
  if constexpr (format == KvFormat::bf16) {
    store_key<format>(values, slot, dim, lane, x);
  } else {
    std::byte* to = values + (slot / 16 * dim + lane * lane_dims) * 16 + f8_value_byte(slot % 16);
    const uint32_t words[] = {x.x, x.y};
#pragma unroll
    for (int i = 0; i < lane_dims; ++i)
      to[i * 16] = static_cast<std::byte>(words[i / 4] >> i % 4 * 8 & 0xFF);
  }
}

}  // namespace qnext::ops::cuda
