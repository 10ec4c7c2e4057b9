// What a warp of the answer form does: decode_attention_sm90.cu tells the whole.
#pragma once

#include "ops/attention/decode_products_sm90.cuh"
#include "ops/attention/decode_ring_sm90.cuh"
#include "ops/sm90/cluster.cuh"

namespace qnext::ops::cuda {

// Queries, products and merges of one warp, beside the others of its block.
template <KvFormat format, int tiles, int column_warps, int fixed_dim, bool clustered>
class AnswerWarp : public AnswerRing<format, tiles, column_warps, fixed_dim, clustered> {
 public:
  using Ring = AnswerRing<format, tiles, column_warps, fixed_dim, clustered>;
  using Ring::a, Ring::data, Ring::queries, Ring::warp_weights, Ring::block_weights;
  using Ring::bytes, Ring::unit, Ring::unit_bytes, Ring::units, Ring::work;
  using Ring::lane, Ring::unit_warp, Ring::column_warp, Ring::g, Ring::t, Ring::dim;
  using typename Ring::Layout;
  static constexpr int steps = Layout::steps;
  static constexpr int subs = Layout::subs;
  static constexpr int chains = 4 / subs;  // sums of a score: products need not wait for each other
  static constexpr int stride = format == KvFormat::bf16 ? 1 : 2;  // steps a load of fragments

  using Ring::Ring;

  __device__ __forceinline__ void run() {
    load_queries();
    start_sums([&](int column) {
      return column < work.columns ? work.sequence.first_position + column / work.group : -1;
    });
    take_units([](int, std::byte*, bool) {});
    merge_warps([&](int column, int d, const Partial& merged) { keep(column, d, merged); });
    if constexpr (clustered) merge_blocks();
  }

 protected:
  using Ring::acquire, Ring::memory_of, Ring::position, Ring::release, Ring::slot;

  // A query's part of a B fragment, as it lies in memory. No branches: the loads of all steps are
  // on their way together. Columns behind the last repeat it, and nobody reads their results.
  __device__ uint2 raw_query(const Bf16* q, int step) const {
    const Bf16* from = q + (fixed_dim == 0 ? min(16 * step, dim - 16) : 16 * step);
    if constexpr (format == KvFormat::bf16)
      return {*reinterpret_cast<const uint32_t*>(from + 2 * t),
              *reinterpret_cast<const uint32_t*>(from + 2 * t + 8)};
    else
      return *reinterpret_cast<const uint2*>(from + 4 * t);
  }
  __device__ static uint2 query_operand(const uint2& raw) {
    if constexpr (format == KvFormat::bf16)
      return raw;
    else
      return {bf16_to_f16(raw.x), bf16_to_f16(raw.y)};
  }
  __device__ const Bf16* query(int tile) const {
    const int column = min(tile * 8 + g, work.columns - 1 - work.first_column);
    return a.inputs.q + work.row(column) * a.inputs.q_stride + work.head(column) * dim;
  }
  __device__ __forceinline__ void keep_queries(const Bf16* q) {
#pragma unroll
    for (int s = 0; s < steps; ++s) own_queries[s] = raw_query(q, s);
#pragma unroll
    for (int s = 0; s < steps; ++s) own_queries[s] = query_operand(own_queries[s]);
  }
  __device__ void load_queries() {
    if constexpr (tiles == 1) {
      keep_queries(query(column_warp));
    } else {
      constexpr int warps = Layout::threads / warp_lanes;
      constexpr int fragments = Layout::columns / 8 * steps;
      static_assert(fragments % warps == 0);
      const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
      uint2 raw[fragments / warps];
#pragma unroll
      for (int i = 0; i < fragments / warps; ++i) {
        const int fragment = i * warps + warp;
        raw[i] = raw_query(query(fragment / steps), fragment % steps);
      }
#pragma unroll
      for (int i = 0; i < fragments / warps; ++i)
        queries[(i * warps + warp) * warp_lanes + lane] = query_operand(raw[i]);
      __syncthreads();
    }
  }

  // complete: puts into a unit what its copies do not bring: (unit, its bytes, values or keys).
  template <typename Complete>
  __device__ __forceinline__ void take_units(const Complete& complete) {
    for (int i = 0; i < units; ++i) {
      acquire(2 * i);
      complete(i, memory_of(2 * i), false);
      float scores[subs][tiles][chains][4] = {};
      multiply_keys(slot(2 * i), scores);
      release(2 * i, false);
      uint32_t weights[subs][tiles][2];
      weigh(position(i), scores, weights);
      acquire(2 * i + 1);
      if (position(i) + unit > work.last + 1) clear_behind(2 * i + 1, work.last + 1 - position(i));
      complete(i, memory_of(2 * i + 1), true);
      multiply_values(slot(2 * i + 1), weights);
      release(2 * i + 1, true);
    }
  }

  // last_of: the last position that a column of the sequence sees.
  template <typename LastOf>
  __device__ __forceinline__ void start_sums(const LastOf& last_of) {
#pragma unroll
    for (int s = 0; s < steps; ++s)
#pragma unroll
      for (int n = 0; n < tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[s][n][i] = 0;
#pragma unroll
    for (int n = 0; n < tiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        highest[n][e] = -INFINITY;
        sum[n][e] = 0;
        const int column = work.first_column + (column_warp * tiles + n) * 8 + 2 * t + e;
        limit[n][e] = last_of(column);
      }
    }
  }

  // Bytes from a sub-unit's keys or values to the next one's.
  __device__ int sub_bytes() const {
    return unit_bytes / subs;
  }

  __device__ void add_scores(int step, const uint32_t (&keys)[4],
                             float (&scores)[tiles][chains][4]) const {
#pragma unroll
    for (int n = 0; n < tiles; ++n) {
      const uint2 q = tiles == 1
                          ? own_queries[tiles == 1 ? step : 0]
                          : queries[((column_warp * tiles + n) * steps + step) * warp_lanes + lane];
      multiply_add<format>(scores[n][step % chains], keys, {q.x, q.y});
    }
  }
  __device__ void multiply_keys(uint32_t keys, float (&scores)[subs][tiles][chains][4]) const {
    const uint32_t mine = keys + lane / 8 % 2 * (sub_bytes() / 2) + lane / 16 * 128 + lane % 8 * 16;
#pragma unroll
    for (int s = 0; s < steps; s += stride) {
      if (fixed_dim == 0 && 16 * s >= dim) break;
#pragma unroll
      for (int u = 0; u < subs; ++u) {
        uint32_t m[4];
        load_matrices(mine + u * sub_bytes() + s / stride * 256, m);
        if constexpr (format == KvFormat::bf16) {
          add_scores(s, m, scores[u]);
        } else {
          uint32_t k[4];
          widen_f8_to_f16(m[0], k[0], k[2]);
          widen_f8_to_f16(m[1], k[1], k[3]);
          add_scores(s, k, scores[u]);
          widen_f8_to_f16(m[2], k[0], k[2]);
          widen_f8_to_f16(m[3], k[1], k[3]);
          if (fixed_dim != 0 || 16 * s + 16 < dim) add_scores(s + 1, k, scores[u]);
        }
      }
    }
  }

  // Scores of the unit at `position` to weights, B fragments of the second product.
  __device__ void weigh(int position, const float (&scores)[subs][tiles][chains][4],
                        uint32_t (&weights)[subs][tiles][2]) {
    const float scale = a.inputs.scale * log2_e;
    bool higher = false;
    float kept[tiles][2];
#pragma unroll
    for (int n = 0; n < tiles; ++n) {
      float p[subs][4];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float top = -INFINITY;
#pragma unroll
        for (int i = 0; i < 2 * subs; ++i) {  // positions g + 8 i
          float score = scores[i / 2][n][0][i % 2 * 2 + e];
#pragma unroll
          for (int chain = 1; chain < chains; ++chain)
            score += scores[i / 2][n][chain][i % 2 * 2 + e];
          score = g + 8 * i <= limit[n][e] - position ? score * scale : -INFINITY;
          p[i / 2][i % 2 * 2 + e] = score;
          top = fmaxf(top, score);
        }
        top = fmaxf(top, __shfl_xor_sync(whole_warp, top, 4));
        top = fmaxf(top, __shfl_xor_sync(whole_warp, top, 8));
        top = fmaxf(top, __shfl_xor_sync(whole_warp, top, 16));
        top = fmaxf(top, highest[n][e]);
        const float base = top == -INFINITY ? 0.0f : top;  // no inf - inf
        higher |= top > highest[n][e];
        kept[n][e] = exp2_fast(highest[n][e] - base);
        highest[n][e] = top;
        float of_unit = 0;
#pragma unroll
        for (int i = 0; i < 2 * subs; ++i) {
          float& weight = p[i / 2][i % 2 * 2 + e];
          weight = exp2_fast(weight - base);
          of_unit += weight;
        }
        sum[n][e] = fmaf(sum[n][e], kept[n][e], of_unit);
      }
#pragma unroll
      for (int u = 0; u < subs; ++u) {
        weights[u][n][0] = transposed(operand_pair<format>(p[u][0], p[u][1]));
        weights[u][n][1] = transposed(operand_pair<format>(p[u][2], p[u][3]));
      }
    }
    if (!__any_sync(whole_warp, higher)) return;  // every factor is 1
#pragma unroll
    for (int s = 0; s < steps; ++s)
#pragma unroll
      for (int n = 0; n < tiles; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) out[s][n][c] *= kept[n][c % 2];
  }

  // Values behind the sequence may be anything, NaN too: zero from position `valid` of the unit on.
  // It is the warp's last unit; where two warps share it, both write the same.
  __device__ void clear_behind(int i, int valid) const {
    uint4* const sixteens = reinterpret_cast<uint4*>(memory_of(i));
    if constexpr (format == KvFormat::bf16) {
      // A lane's sixteens are of one position of each eight.
      static_assert(warp_lanes % 8 == 0);
#pragma unroll
      for (int eight = 0; eight < unit / 8; ++eight)
        if (eight * 8 + lane % 8 >= valid)
#pragma unroll
          for (int s = 0; s < Layout::width; s += warp_lanes)
            if (fixed_dim != 0 || s + lane < dim) sixteens[eight * dim + s + lane] = uint4{};
    } else {
#pragma unroll 1
      for (int sixteen = 0; sixteen < unit / 16; ++sixteen) {
        uint32_t kept[4];  // bits of a value's 16 positions, as f8_value_byte() has them
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          kept[t] = 0;
#pragma unroll
          for (int b = 0; b < 4; ++b)
            if (16 * sixteen + b / 2 * 8 + 2 * t + b % 2 < valid) kept[t] |= 0xFFu << 8 * b;
        }
#pragma unroll
        for (int s = 0; s < Layout::width; s += warp_lanes) {
          if (fixed_dim == 0 && s + lane >= dim) break;
          uint4& x = sixteens[sixteen * dim + s + lane];
          x = {x.x & kept[0], x.y & kept[1], x.z & kept[2], x.w & kept[3]};
        }
      }
    }
    __syncwarp();
  }

  __device__ void multiply_values(uint32_t values, const uint32_t (&weights)[subs][tiles][2]) {
    const auto add = [&](int step, const uint32_t(&v)[4], int u) {
#pragma unroll
      for (int n = 0; n < tiles; ++n) multiply_add<format>(out[step][n], v, weights[u][n]);
    };
#pragma unroll
    for (int s = 0; s < steps; s += stride) {
      if (fixed_dim == 0 && 16 * s >= dim) break;
#pragma unroll
      for (int u = 0; u < subs; ++u) {
        const uint32_t mine = values + u * sub_bytes();
        uint32_t m[4];
        if constexpr (format == KvFormat::bf16) {
          const int piece = 2 * s + lane / 8 % 2;
          load_transposed(mine + lane / 16 * (sub_bytes() / 2) + piece * 128 + lane % 8 * 16, m);
          add(s, m, u);
        } else {
          load_matrices(mine + (16 * s + lane) * 16, m);
          uint32_t v[4];
          widen_f8_to_f16(m[0], v[0], v[2]);
          widen_f8_to_f16(m[1], v[1], v[3]);
          add(s, v, u);
          widen_f8_to_f16(m[2], v[0], v[2]);
          widen_f8_to_f16(m[3], v[1], v[3]);
          add(s + 1, v, u);
        }
      }
    }
  }

  // The unit warps' results in order, [unit warp][column][width], to the block's.
  __device__ __forceinline__ void lay_results() {
    __syncthreads();  // rings are free
    float* const results = reinterpret_cast<float*>(data);
#pragma unroll
    for (int n = 0; n < tiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float total = sum[n][e];
        total += __shfl_xor_sync(whole_warp, total, 4);
        total += __shfl_xor_sync(whole_warp, total, 8);
        total += __shfl_xor_sync(whole_warp, total, 16);
        const int column = unit_warp * Layout::columns + (column_warp * tiles + n) * 8 + 2 * t + e;
        if (g == 0) warp_weights[column] = {highest[n][e], total};
#pragma unroll
        for (int s = 0; s < steps; ++s) {
          results[column * Layout::merge_stride + 16 * s + g] = out[s][n][e];
          results[column * Layout::merge_stride + 16 * s + g + 8] = out[s][n][e + 2];
        }
      }
    }
    __syncthreads();
  }
  template <typename Keep>
  __device__ __forceinline__ void merge_warps(const Keep& keep_merged) {
    lay_results();
    const float* const results = reinterpret_cast<const float*>(data);
    const int fours = dim / 4;
    for (int i = static_cast<int>(threadIdx.x); i < block_columns() * fours; i += Layout::threads) {
      const int column = i / fours, d = i % fours * 4;
      Partial merged{{-INFINITY, 0}, {0, 0, 0, 0}};
#pragma unroll
      for (int w = 0; w < unit_warps; ++w)
        merged.weight.x = fmaxf(merged.weight.x, warp_weights[w * Layout::columns + column].x);
      if (merged.weight.x != -INFINITY) {
#pragma unroll
        for (int w = 0; w < unit_warps; ++w)
          add_scaled(merged, warp_weights[w * Layout::columns + column],
                     *reinterpret_cast<const float4*>(
                         results + (w * Layout::columns + column) * Layout::merge_stride + d));
      }
      keep_merged(column, d, merged);
    }
  }
  // For merge_blocks(), or for the merging kernel.
  __device__ __forceinline__ void keep(int column, int d, const Partial& merged) const {
    if constexpr (clustered) {
      // In place: nobody else reads these four of the first warp's.
      float* const results = reinterpret_cast<float*>(data);
      *reinterpret_cast<float4*>(results + column * Layout::merge_stride + d) = merged.sums;
      if (d == 0) block_weights[column] = merged.weight;
    } else {
      const int64_t index =
          (work.row(column) * a.shape.query_heads + work.head(column)) * a.pieces + work.piece;
      *reinterpret_cast<float4*>(a.sums + index * dim + d) = merged.sums;
      if (d == 0) a.weights[index] = merged.weight;
    }
  }

  // The blocks share out the columns' dimensions, at most four a thread.
  __device__ void merge_blocks() const {
    static_assert(Layout::columns * Layout::width / 4 <= cluster_pieces * Layout::threads);
    const int fours = dim / 4;
    const int i = work.piece * Layout::threads + static_cast<int>(threadIdx.x);
    const bool mine = i < block_columns() * fours;
    const int column = mine ? i / fours : 0, d = mine ? i % fours * 4 : 0;
    const int64_t row = work.row(column);
    const int head = work.head(column);
    const uint2 gate = gate_of(a, row, head, d);  // comes while the blocks wait for each other
    sm90::arrive_at_cluster();
    sm90::wait_for_cluster();
    float2 weights[cluster_pieces];
    float4 sums[cluster_pieces];
    if (mine) {
      const float* const results = reinterpret_cast<const float*>(data);
#pragma unroll
      for (int p = 0; p < cluster_pieces; ++p) {
        weights[p] = of_block<float2>(block_weights + column, p);
        sums[p] = of_block<float4>(results + column * Layout::merge_stride + d, p);
      }
    }
    sm90::arrive_at_cluster();
    if (mine) {
      const int positions =
          work.sequence.first_position + (work.first_column + column) / work.group + 1;
      finish(a, row, head, d, merge_cluster(weights, sums, short_pieces(positions)), gate);
    }
    sm90::wait_for_cluster();  // others may still read this block's
  }
  __device__ int block_columns() const {
    return min(Layout::columns, work.columns - work.first_column);
  }

  uint2 own_queries[tiles == 1 ? steps : 1];
  float out[steps][tiles][4];  // C fragments; rows are dimensions
  // Of columns 2 t and 2 t + 1 of each tile.
  float highest[tiles][2], sum[tiles][2];
  int limit[tiles][2];  // the last position that the column's row sees
};

}  // namespace qnext::ops::cuda
