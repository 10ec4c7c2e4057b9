// What the consumers of the prompt form share, whatever the cache's format: queries on their way
// in, the running softmax, results on their way out. prompt_attention_sm90.cu tells the whole.
#pragma once

#include "ops/attention/prompt_producer_sm90.cuh"

namespace qnext::ops::cuda {

// Who a consumer is, and its two queries: g and g + 8 of its warp's 16.
struct Consumer {
  int index;       // of the two warpgroups
  int warp, lane;  // of the warpgroup, of the warp
  int kv_head, group, dim;
  int first_position;  // of the block's first row
  int position[2];     // -1: no such query

  __device__ Consumer(const Place& place, int kv_head_, int group_, int dim_)
      : kv_head(kv_head_), group(group_), dim(dim_) {
    const int thread = static_cast<int>(threadIdx.x);
    index = thread / group_threads - 1;
    warp = thread % group_threads / warp_lanes;
    lane = thread % warp_lanes;
    first_position = place.sequence.first_position + place.first;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = query(r) / group;
      position[r] = row < place.rows ? first_position + row : -1;
    }
  }
  __device__ int query(int r) const {
    return index * group_queries + warp * 16 + r * 8 + lane / 4;
  }
};

// Where a query of the block lies; those behind the last repeat it, nobody reads their results.
struct QueryPlace {
  int64_t row;  // of the step
  int head;
};
__device__ inline QueryPlace place_of_query(const Place& place, const Consumer& who, int query) {
  const int near = min(query, place.rows * who.group - 1);
  return {place.sequence.first_row + place.first + near / who.group,
          who.kv_head * who.group + near % who.group};
}
__device__ inline const uint4* query_source(const Prompt& a, const Place& place,
                                            const Consumer& who, int query) {
  const QueryPlace at = place_of_query(place, who, query);
  return reinterpret_cast<const uint4*>(a.inputs.q + at.row * a.inputs.q_stride +
                                        at.head * who.dim);
}

// A warpgroup's queries into shared memory: [64 / 8][width / 8][8 queries][8], zeros behind dim.
template <int width>
__device__ void load_queries(const Prompt& a, const Place& place, const Consumer& who,
                             std::byte* to) {
  constexpr int chunks = width / 8;
  for (int eight = who.warp; eight < group_queries / 8; eight += group_threads / warp_lanes) {
    const uint4* const from =
        query_source(a, place, who, who.index * group_queries + eight * 8 + who.lane % 8);
    uint4 words[chunks / 4];  // no branches: the loads go together
#pragma unroll
    for (int i = 0; i < chunks / 4; ++i)
      words[i] = from[min(i * 4 + who.lane / 8, who.dim / 8 - 1)];
#pragma unroll
    for (int i = 0; i < chunks / 4; ++i) {
      const int chunk = i * 4 + who.lane / 8;
      reinterpret_cast<uint4*>(to)[(eight * chunks + chunk) * 8 + who.lane % 8] =
          chunk * 8 < who.dim ? words[i] : uint4{};
    }
  }
}

__device__ inline float largest_of(uint32_t pair, float than) {
  return fmaxf(than, fmaxf(fabsf(low_value(pair)), fabsf(high_value(pair))));
}
__device__ inline uint32_t f8_word(uint32_t first, uint32_t second, float factor) {
  return f8_pair(low_value(first) * factor, high_value(first) * factor) |
         f8_pair(low_value(second) * factor, high_value(second) * factor) << 16;
}

// The same in e4m3, [64 / 8][width / 16][8 queries][16], each query times the power of two that
// puts its largest value into [128, 256); unit[query of 64]: 1 / that.
template <int width>
__device__ void load_queries_f8(const Prompt& a, const Place& place, const Consumer& who,
                                std::byte* to, float* unit) {
  constexpr int chunks = width / 16, own = chunks / 4;
  for (int eight = who.warp; eight < group_queries / 8; eight += group_threads / warp_lanes) {
    const int of_eight = who.lane % 8, first = who.lane / 8;
    const uint4* const from =
        query_source(a, place, who, who.index * group_queries + eight * 8 + of_eight);
    uint4 words[own][2];
    float top = 0;
#pragma unroll
    for (int i = 0; i < own; ++i) {
      const int chunk = min(i * 4 + first, who.dim / 16 - 1);  // once more: the same maximum
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 word = from[2 * chunk + half];
        words[i][half] = word;
        top = largest_of(word.x, largest_of(word.y, largest_of(word.z, largest_of(word.w, top))));
      }
    }
    top = fmaxf(top, __shfl_xor_sync(whole_warp, top, 8));
    top = fmaxf(top, __shfl_xor_sync(whole_warp, top, 16));
    const F8Unit scale(top);
    if (first == 0) unit[eight * 8 + of_eight] = scale.unit;
#pragma unroll
    for (int i = 0; i < own; ++i) {
      const int chunk = i * 4 + first;
      const uint4 low = words[i][0], high = words[i][1];
      const uint4 operand{f8_word(low.x, low.y, scale.factor), f8_word(low.z, low.w, scale.factor),
                          f8_word(high.x, high.y, scale.factor),
                          f8_word(high.z, high.w, scale.factor)};
      reinterpret_cast<uint4*>(to)[(eight * chunks + chunk) * 8 + of_eight] =
          chunk * 16 < who.dim ? operand : uint4{};
    }
  }
}

// The running softmax of a thread's two queries.
//
// bf16: weights are relative to the largest so far. f8: to the largest of the tile, times 256, so
// that e4m3 spends its range on the tile alone; `factor` brings the tile's products to the others.
template <KvFormat format>
struct Softmax {
  static constexpr float f8_exponent = 8;  // of the largest weight
  float highest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  // of this lane's columns
  float kept[2];          // what earlier sums are multiplied by
  float factor[2];        // f8 only

  // Scores become weights; true if a maximum of the warp rose. scale: to powers of two. limit: the
  // last key that counts, from the tile's first.
  __device__ bool take(float (&s)[32], const float (&scale)[2], bool masked, const int (&limit)[2],
                       int t) {
    if (masked) {
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (i / 4 * 8 + 2 * t + i % 2 > limit[i / 2 % 2]) s[i] = -INFINITY;
    }
    bool higher = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = fmaxf(s[2 * r], s[2 * r + 1]);
#pragma unroll
      for (int i = 4; i < 32; i += 4) top = fmaxf(top, fmaxf(s[i + 2 * r], s[i + 2 * r + 1]));
      top = fmaxf(top, __shfl_xor_sync(whole_warp, top, 1));
      top = fmaxf(top, __shfl_xor_sync(whole_warp, top, 2));
      top *= scale[r];
      const auto finite = [](float x) { return x == -INFINITY ? 0.0f : x; };  // no inf - inf
      const float now = fmaxf(top, highest[r]);
      higher |= now > highest[r];
      kept[r] = exp2_fast(highest[r] - finite(now));
      highest[r] = now;
      float base = finite(now);
      if constexpr (format == KvFormat::f8) {
        factor[r] = exp2_fast(top - finite(now) - f8_exponent);
        base = finite(top) - f8_exponent;
      }
      float of_tile = 0;
#pragma unroll
      for (int i = 0; i < 32; i += 4) {
        float& first = s[i + 2 * r];
        float& second = s[i + 2 * r + 1];
        first = exp2_fast(fmaf(first, scale[r], -base));
        second = exp2_fast(fmaf(second, scale[r], -base));
        of_tile += first + second;
      }
      if constexpr (format == KvFormat::f8) of_tile *= factor[r];
      sum[r] = fmaf(sum[r], kept[r], of_tile);
    }
    return __any_sync(whole_warp, higher);
  }
};

// Weights as A fragments: bf16, 16 keys each; e4m3, 32 keys each, in the order of f8_value_byte.
__device__ inline void pack_weights(const float (&s)[32], uint32_t (&p)[4][4]) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i) p[k][i] = bf16_pair(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
}
__device__ inline void pack_weights(const float (&s)[32], uint32_t (&p)[2][4]) {
#pragma unroll
  for (int k = 0; k < 2; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* const of = s + 16 * k + i / 2 * 8 + i % 2 * 2;
      p[k][i] = f8_pair(of[0], of[1]) | f8_pair(of[4], of[5]) << 16;
    }
}

// The gates and places of a thread's results.
template <int width, bool exact>
struct Outlet {
  uint32_t gates[2][width / 8];
  Bf16* to[2];

  __device__ Outlet(const Prompt& a, const Place& place, const Consumer& who) {
    const int t = who.lane % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const QueryPlace at = place_of_query(place, who, who.query(r));
      to[r] = a.inputs.out + at.row * a.inputs.out_stride + at.head * who.dim + 2 * t;
      const Bf16* gate =
          a.inputs.gate + at.row * a.inputs.gate_stride + at.head * 2 * who.dim + 2 * t;
#pragma unroll
      for (int n = 0; n < width / 8; ++n)
        gates[r][n] =
            *reinterpret_cast<const uint32_t*>(gate + (exact ? 8 * n : min(8 * n, who.dim - 8)));
    }
  }

  // sums: of the softmax, of this lane's columns.
  __device__ void store(const Consumer& who, const float (&out)[width / 2],
                        const float (&sums)[2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = sums[r];
      sum += __shfl_xor_sync(whole_warp, sum, 1);
      sum += __shfl_xor_sync(whole_warp, sum, 2);
      const float factor = 1.0f / sum;
      if (who.position[r] < 0) continue;
#pragma unroll
      for (int n = 0; n < width / 8; ++n)
        if (exact || 8 * n < who.dim)
          *reinterpret_cast<uint32_t*>(to[r] + 8 * n) =
              bf16_pair(out[4 * n + 2 * r] * factor * gate_factor(low_value(gates[r][n])),
                        out[4 * n + 2 * r + 1] * factor * gate_factor(high_value(gates[r][n])));
    }
  }
};

}  // namespace qnext::ops::cuda
