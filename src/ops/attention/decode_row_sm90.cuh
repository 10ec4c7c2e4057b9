// What a warp does where each sequence has one row: decode_row_sm90.cu tells the whole.
#pragma once

#include <algorithm>

#include "ops/attention/decode_warp_sm90.cuh"
#include "ops/attention/prepare_head_sm90.cuh"

namespace qnext::ops::cuda {

struct RowAnswer {
  Answer answer;
  PagedProjections projections;
};

template <KvFormat format, int dim, bool clustered>
class RowWarp : public AnswerWarp<format, 1, 1, dim, clustered> {
 public:
  using Base = AnswerWarp<format, 1, 1, dim, clustered>;
  using Base::a, Base::work, Base::lane, Base::unit_warp, Base::unit, Base::units, Base::position;
  using typename Base::Layout;
  static constexpr int most_group = Layout::columns;
  // Of prepared queries: rows on different banks.
  static constexpr int query_stride = dim + (format == KvFormat::bf16 ? 8 : 16);
  static constexpr int room_at = Layout::shared_bytes - 128;  // theirs, behind `data`
  static constexpr int query_bytes = most_group * query_stride * 2;
  static constexpr int shared_bytes = Layout::shared_bytes + query_bytes;
  static_assert(room_at % 16 == 0);

  __device__ RowWarp(const RowAnswer& row_answer, std::byte* shared)
      : Base(row_answer.answer, shared, true),
        from(row_answer.projections),
        mine(lane * lane_dims < dim),
        has_newest(units > 0 && position(units - 1) + unit > work.last) {}

  // Before the wait. All positions but the newest are at rest; that one's bytes are replaced.
  __device__ __forceinline__ void fetch() {
    // What a cluster's rings do not hold yet waits in L2.
    const int copies = min(clustered ? Base::most_copies : Layout::slots, 2 * units);
#pragma unroll 1
    for (int i = 0; i < copies; ++i) this->copy(i, i < Layout::slots);
    load_weight(from.q_norm, lane, dim, query_weight);
    load_weight(from.k_norm, lane, dim, key_weight);
    const int64_t row = work.sequence.first_row;
#pragma unroll
    for (int h = 0; h < heads_a_warp; ++h) {
      const int head = work.kv_head * work.group + min(unit_warp + h * unit_warps, work.group - 1);
      sources[h] = from.q_gate + row * from.q_gate_stride + head * 2 * dim + lane * lane_dims;
    }
    const int kv_first = work.kv_head * dim + lane * lane_dims;
    sources[heads_a_warp] = from.k + row * from.k_stride + kv_first;
    value_source = from.v + row * from.v_stride + kv_first;
    const auto half = static_cast<int>(from.half);
    cosine = from.cosine + row * half;
    sine = from.sine + row * half;
  }

  __device__ __forceinline__ void run() {
    prepare();
    take();
    merge_row([&](int column, int d, const Partial& merged) { this->keep(column, d, merged); });
    store_newest();
  }

 protected:
  static constexpr int heads_a_warp = most_group / unit_warps;

  // Queries into registers as products take them. Every warp makes the key, too, as one more head
  // beside its queries takes no time of its own; the one with the newest position keeps it.
  __device__ __forceinline__ void prepare() {
    uint4 bits[heads_a_warp + 1], value_bits{};
#pragma unroll
    for (int h = 0; h <= heads_a_warp; ++h)
      bits[h] = mine ? *reinterpret_cast<const uint4*>(sources[h]) : uint4{};
    if (has_newest && mine) value_bits = *reinterpret_cast<const uint4*>(value_source);
    const auto half = static_cast<int>(from.half);
    const bool turns = lane * lane_dims < 2 * half;
    Rotation rotation;
    if (turns) rotation.load_lane(cosine, sine, half, lane * lane_dims);
    const int partner = lane * lane_dims < half ? lane + half / lane_dims : lane - half / lane_dims;
    Bf16* const queries = reinterpret_cast<Bf16*>(this->data + room_at);
    // All heads side by side: sums, then a lane a head for their factors, then the rotation.
    float x[heads_a_warp + 1][lane_dims], squares = 0;
#pragma unroll
    for (int h = 0; h <= heads_a_warp; ++h) {
      widen(bits[h], x[h]);
      const float of_head = warp_sum(lane_squares(x[h]));
      if (lane == h) squares = of_head;
    }
    const float factor = norm_factor(squares, dim, from.eps);
#pragma unroll
    for (int h = 0; h <= heads_a_warp; ++h) {
      scale_head(x[h], __shfl_sync(whole_warp, factor, h),
                 h == heads_a_warp ? key_weight : query_weight);
#pragma unroll
      for (int i = 0; i < lane_dims; ++i) {
        const float other = __shfl_sync(whole_warp, x[h][i], partner & (warp_lanes - 1));
        x[h][i] = turns ? rotation.turned(i, x[h][i], other) : x[h][i];
      }
      if (h < heads_a_warp && mine)
        reinterpret_cast<uint4*>(queries + (unit_warp + h * unit_warps) * query_stride)[lane] =
            narrow(x[h]);
    }
    key = cached<format>(x[heads_a_warp]);
    float v[lane_dims];
    widen(value_bits, v);
    value = cached<format>(v);
    __syncthreads();
    this->keep_queries(queries + min(this->g, work.group - 1) * query_stride);
    __syncthreads();  // no one reads them any more
  }

  __device__ __forceinline__ void take() {
    this->start_sums([&](int) { return work.last; });  // columns behind the last are not read
    this->take_units([&](int i, std::byte* bytes, bool of_values) {
      if (has_newest && i + 1 == units) complete(bytes, of_values);
    });
  }

  // As merge_warps(), but a thread's dimensions are of one column: its factors serve all of them.
  template <typename Keep>
  __device__ __forceinline__ void merge_row(const Keep& keep_merged) {
    this->lay_results();
    constexpr int lanes = Layout::threads / most_group;  // a column
    constexpr int fours = dim / (4 * lanes);             // a lane
    static_assert(fours * 4 * lanes == dim);
    const int column = static_cast<int>(threadIdx.x) / lanes;
    if (column >= work.group) return;
    const int first = static_cast<int>(threadIdx.x) % lanes * 4;
    const float* const results =
        reinterpret_cast<const float*>(this->data) + column * Layout::merge_stride + first;
    const float2* const weights = this->warp_weights + column;
    float top = -INFINITY;
#pragma unroll
    for (int w = 0; w < unit_warps; ++w) top = fmaxf(top, weights[w * most_group].x);
    Partial merged[fours];
#pragma unroll
    for (int i = 0; i < fours; ++i) merged[i] = {{top, 0}, {0, 0, 0, 0}};
#pragma unroll
    for (int w = 0; w < unit_warps; ++w)
#pragma unroll
      for (int i = 0; i < fours; ++i)
        add_scaled(merged[i], weights[w * most_group],
                   *reinterpret_cast<const float4*>(
                       results + w * most_group * Layout::merge_stride + i * 4 * lanes));
#pragma unroll
    for (int i = 0; i < fours; ++i) keep_merged(column, first + i * 4 * lanes, merged[i]);
  }

  // The newest position's key and value to the cache.
  __device__ __forceinline__ void store_newest() const {
    const auto last = static_cast<unsigned>(work.last);
    const int64_t page =
        __shfl_sync(whole_warp, work.page, (last - work.begin) / page_tokens % warp_lanes);
    if (!has_newest || !mine) return;
    constexpr int block_bytes = page_tokens * dim * Base::bytes;
    std::byte* const keys =
        a.cache.base + page * a.cache.page_stride + 2 * work.kv_head * block_bytes;
    store_key<format>(keys, last % page_tokens, dim, lane, key);
    store_value<format>(keys + block_bytes, last % page_tokens, dim, lane, value);
  }

 private:
  // The newest position's key or value into the unit that has come without them.
  __device__ __forceinline__ void complete(std::byte* bytes, bool of_values) const {
    const auto at = static_cast<unsigned>(work.last - position(units - 1));
    if (mine && of_values) store_value<format>(bytes, at, dim, lane, value);
    if (mine && !of_values) store_key<format>(bytes, at, dim, lane, key);
    __syncwarp();
  }

  const PagedProjections& from;
  const bool mine;
  const bool has_newest;  // the warp's last unit holds the newest position
  // What the lane will want of the row: its heads of queries, then the key; the value; the angles.
  const Bf16* sources[heads_a_warp + 1];
  const Bf16* value_source;
  const float *cosine, *sine;
  float query_weight[lane_dims], key_weight[lane_dims];
  Cached<format> key, value;
};

// Block `rank` of the cluster merges one query head's dimensions from `first` on, if there is such
// a head. A head has a power of two of blocks.
template <int dim>
struct Share {
  static_assert((dim & (dim - 1)) == 0);
  int head_shift;  // log2 of a head's blocks
  __device__ explicit Share(int group) : head_shift(4 - (group > 1) - (group > 2) - (group > 4)) {
    static_assert(cluster_pieces == 16);
  }
  __device__ int dims() const { return dim >> head_shift; }
  __device__ int head(int rank) const { return rank >> head_shift; }
  __device__ int first(int rank) const { return (rank & ((1 << head_shift) - 1)) * dims(); }
  __device__ int block_of(int head, int d) const {
    return (head << head_shift) + (d << head_shift) / dim;
  }
};

// Where the other blocks send their pieces' results.
template <int dim>
struct Inbox {
  static constexpr int most_fours = dim / 8;  // two heads' blocks at least
  float4 sums[cluster_pieces][most_fours];
  float2 weights[cluster_pieces];
  sm90::Barrier come;
};

template <KvFormat format, int dim>
class ClusterRowWarp : public RowWarp<format, dim, true> {
 public:
  using Base = RowWarp<format, dim, true>;
  using Base::a, Base::work;
  using typename Base::Layout;
  // The inbox lies where queries were before the others knew that they may send.
  static constexpr int shared_bytes =
      Layout::shared_bytes + std::max(Base::query_bytes, static_cast<int>(sizeof(Inbox<dim>)));

  __device__ ClusterRowWarp(const RowAnswer& row_answer, std::byte* shared)
      : Base(row_answer, shared),
        inbox(*reinterpret_cast<Inbox<dim>*>(this->data + Base::room_at)),
        share(work.group),
        rank(work.piece),
        pieces(short_pieces(work.last + 1)) {
    static_assert(Base::query_bytes <= sizeof(Inbox<dim>::sums));  // not its barrier
    if (threadIdx.x == 0) {
      const uint32_t barrier = shared_address(&inbox.come);
      barrier_init(barrier, 1);
      barrier_init_done();
      const uint32_t bytes = share.dims() * sizeof(float) + sizeof(float2);
      barrier_expect(barrier, share.head(rank) < work.group ? pieces * bytes : 0);
    }
  }

  __device__ __forceinline__ void run() {
    const bool merges = share.head(rank) < work.group && threadIdx.x < share.dims() / 4;
    const int d = share.first(rank) + static_cast<int>(threadIdx.x) * 4;
    const int64_t row = work.sequence.first_row;
    const int head = work.kv_head * work.group + share.head(rank);
    uint2 gate{};
    if (merges) gate = gate_of(a, row, head, d);
    if (rank < pieces) this->prepare();
    sm90::arrive_at_cluster_relaxed();  // from here on others may send
    if (rank < pieces) this->take();
    sm90::wait_for_cluster();
    if (rank < pieces) {
      this->merge_row([&](int column, int of_column, const Partial& merged) {
        send_merged(column, of_column, merged);
      });
      this->store_newest();  // nobody waits for it here
    }
    if (threadIdx.x >= warp_lanes || share.head(rank) >= work.group) return;
    sm90::wait_for_sent(shared_address(&inbox.come), 0);
    const Partial merged = merge_inbox();
    if (merges) finish(a, row, head, d, merged, gate);
  }

 private:
  __device__ __forceinline__ void send_merged(int column, int d, const Partial& merged) const {
    const int to = share.block_of(column, d);
    const uint32_t barrier = sm90::address_in_block(shared_address(&inbox.come), to);
    const int in_share = d & (share.dims() - 1);
    sm90::send(sm90::address_in_block(shared_address(&inbox.sums[rank][in_share / 4]), to),
               merged.sums, barrier);
    if (in_share == 0)
      sm90::send(sm90::address_in_block(shared_address(&inbox.weights[rank]), to), merged.weight,
                 barrier);
  }

  // As merge_cluster(), by a warp: a lane a piece for the factors.
  __device__ __forceinline__ Partial merge_inbox() const {
    const int lane = this->lane;
    const float2 weight = lane < pieces ? inbox.weights[lane] : float2{-INFINITY, 0};
    Partial merged{{warp_maximum(weight.x), 0}, {0, 0, 0, 0}};
    const float factor = exp2_fast(weight.x - merged.weight.x);
    const int four = min(lane, Inbox<dim>::most_fours - 1);
#pragma unroll 2
    for (int p = 0; p < pieces; ++p)
      add_times(merged, __shfl_sync(whole_warp, weight.y, p), inbox.sums[p][four],
                __shfl_sync(whole_warp, factor, p));
    return merged;
  }

  Inbox<dim>& inbox;
  const Share<dim> share;
  const int rank;    // in the cluster, and the piece's number
  const int pieces;  // that there are
};

}  // namespace qnext::ops::cuda
