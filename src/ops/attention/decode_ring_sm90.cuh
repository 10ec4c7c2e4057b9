// Which work a warp of the answer form has, and how its keys and values come:
// decode_attention_sm90.cu tells the whole.
#pragma once

#include "ops/attention/decode_layout_sm90.cuh"
#include "ops/attention/decode_merge_sm90.cuh"
#include "ops/attention/paged_sm90.cuh"

namespace qnext::ops::cuda {

// One warp's work, and the ring of shared memory through which its keys and values come.
template <KvFormat format, int tiles, int column_warps, int fixed_dim, bool clustered>
class AnswerRing {
 public:
  using Layout = AnswerLayout<format, tiles, column_warps, fixed_dim, clustered>;
  static constexpr int bytes = element_bytes(format);
  static constexpr int unit = Layout::unit;
  // Of a warp.
  static constexpr int most_copies =
      2 * ((clustered ? short_piece(cluster_positions) : most_piece) / unit / unit_warps);

  // only_group: of columns; known when compiling.
  __device__ AnswerRing(const Answer& a_, std::byte* shared, bool only_group)
      : a(a_),
        one_group(only_group),
        data(shared + (128 - shared_address(shared) % 128) % 128),
        queries(reinterpret_cast<uint2*>(data + Layout::data_bytes)),
        warp_weights(reinterpret_cast<float2*>(data + Layout::data_bytes + Layout::query_bytes)),
        block_weights(warp_weights + unit_warps * Layout::columns),
        lane(static_cast<int>(threadIdx.x) % warp_lanes),
        unit_warp(static_cast<int>(threadIdx.x) / warp_lanes % unit_warps),
        column_warp(static_cast<int>(threadIdx.x) / warp_lanes / unit_warps),
        g(lane / 4),
        t(lane % 4),
        dim(fixed_dim == 0 ? static_cast<int>(a.shape.head_dim) : fixed_dim),
        unit_bytes(unit * dim * bytes),
        ring(shared_address(data) + unit_warp * Layout::ring),
        full(shared_address(block_weights + Layout::columns) + unit_warp * Layout::slots * 16),
        free(full + Layout::slots * 8),
        work(a, clustered, one_group, Layout::columns) {
    if (lane == 0 && column_warp == 0) {
#pragma unroll 1
      for (int i = 0; i < Layout::slots; ++i) {
        barrier_init(full + 8 * i, 1);
        if (column_warps > 1) barrier_init(free + 8 * i, column_warps);
      }
      barrier_init_done();
    }
    if constexpr (column_warps > 1)
      __syncthreads();
    else
      __syncwarp();
    const int all_units = max(0, work.end - work.begin + unit - 1) / unit;
    units = max(0, all_units - unit_warp + unit_warps - 1) / unit_warps;
  }

  // Before run(): with the keys and values that are at rest, those of positions before the
  // sequence's rows, and then with the others.
  __device__ __forceinline__ void fill_ring(bool at_rest) const {
    if (column_warp != 0) return;
    for (int i = 0; i < min(Layout::slots, 2 * units); ++i)
      if ((position(i / 2) + unit <= work.sequence.first_position) == at_rest) copy(i);
  }

  const Answer& a;
  const bool one_group;
  std::byte* const data;  // rings, then results
  uint2* const queries;
  float2* const warp_weights;   // [unit_warps][columns]
  float2* const block_weights;  // [columns]
  const int lane, unit_warp, column_warp, g, t;
  const int dim, unit_bytes;
  const uint32_t ring, full, free;
  const Work work;
  int units;  // of this warp

 protected:
  __device__ int position(int i) const {
    return work.begin + (i * unit_warps + unit_warp) * unit;
  }

  // The warp's ring: copy 2 i brings the keys of its unit i, copy 2 i + 1 the values.
  __device__ uint32_t slot(int i) const {
    return ring + i % Layout::slots * Layout::slot_bytes;
  }
  __device__ std::byte* memory_of(int i) const {
    return data + (slot(i) - shared_address(data));
  }
  // to_ring: else to L2, for later.
  __device__ void copy(int i, bool to_ring = true) const {
    const auto from = static_cast<unsigned>(position(i / 2));  // shifts are shorter than divisions
    const int page = __shfl_sync(whole_warp, work.page, (from - work.begin) / page_tokens);
    if (lane != 0) return;
    const auto entry =
        static_cast<unsigned>(2 * work.kv_head + i % 2) * page_tokens + from % page_tokens;
    const std::byte* const from_page =
        a.cache.base + page * a.cache.page_stride + entry * static_cast<unsigned>(dim * bytes);
    if (!to_ring) {
      prefetch_bulk(from_page, unit_bytes);
      return;
    }
    const uint32_t barrier = full + i % Layout::slots * 8;
    barrier_expect(barrier, unit_bytes);
    // A short context may stay in L2 until the next step, and groups of columns share theirs.
    if (clustered || (!one_group && a.column_groups > 1))
      bulk_copy(slot(i), from_page, unit_bytes, barrier);
    else
      bulk_copy(slot(i), from_page, unit_bytes, barrier, sm90::read_once());
  }
  __device__ void acquire(int i) const {
    barrier_wait(full + i % Layout::slots * 8, i / Layout::slots & 1);
  }
  // of_values: known when compiling; a warp of a cluster has few copies beyond its ring.
  __device__ void release(int i, bool of_values) const {
    __syncwarp();
    if (column_warps > 1 && lane == 0) barrier_arrive(free + i % Layout::slots * 8);
    if (Layout::slots + of_values >= most_copies) return;
    if (column_warp == 0 && i + Layout::slots < 2 * units) {
      if (column_warps > 1) barrier_wait(free + i % Layout::slots * 8, i / Layout::slots & 1);
      copy(i + Layout::slots);
    }
  }
};

}  // namespace qnext::ops::cuda
