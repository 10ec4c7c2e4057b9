// Projections to queries and cache entries. A warp takes a head of one row (few rows: latency) or
// of four (many: loads in flight), a lane 8 of its dimensions: one 16-byte load and one store a
// row. The pair that a rotation mixes lies in two lanes, so what is rotated passes through shared
// memory.
//
// f8 values lie transposed: the warp of the first of 16 rows that fill 16 positions of a page
// stores them all, 16 bytes a dimension; rows without such company store single bytes.
#include "base/cuda_error.h"
#include "ops/attention/prepare_head_sm90.cuh"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int warps = 8;
constexpr int widest_head = warp_lanes * lane_dims;

struct Prepare {
  Batch batch;
  PagedShape shape;
  PagedCache cache;
  PagedProjections projections;
  Bf16* q;
  int64_t q_stride;
};

// Norm and rotation of one head; lane l holds dimensions 8 l to 8 l + 7. head: this warp's.
__device__ void prepare_head(float (&x)[lane_dims], int lane, int dim, const float (&w)[lane_dims],
                             float eps, const Rotation& rotation, int half, float* head) {
  scale_head(x, norm_factor(warp_sum(lane_squares(x)), dim, eps), w);
  const int first = lane * lane_dims;
  const bool turns = first < 2 * half;
  __syncwarp();  // the row before is read
  if (turns) {
    reinterpret_cast<float4*>(head + first)[0] = {x[0], x[1], x[2], x[3]};
    reinterpret_cast<float4*>(head + first)[1] = {x[4], x[5], x[6], x[7]};
  }
  __syncwarp();
  if (turns) {
#pragma unroll
    for (int i = 0; i < lane_dims; ++i) {
      const int d = first + i;
      if (d < 2 * half) x[i] = rotation.turned(i, x[i], head[d < half ? d + half : d - half]);
    }
  }
}

// Where a row's keys of one head lie, and its slot in the page.
struct Place {
  std::byte* keys;
  int slot;
};
template <KvFormat format>
__device__ Place place_of(const Prepare& a, const SequenceRows& sequence, int64_t row,
                          int kv_head) {
  const auto position = static_cast<int>(sequence.first_position + row - sequence.first_row);
  const int64_t page = a.batch.pages[sequence.first_page + position / page_positions];
  const int64_t block_bytes = page_positions * a.shape.head_dim * element_bytes(format);
  return {a.cache.base + page * a.cache.page_stride + kv_head * 2 * block_bytes,
          static_cast<int>(position % page_positions)};
}

// Query or key heads of `rows` rows.
template <KvFormat format, int rows>
__device__ void prepare_rows(const Prepare& a, int64_t first_row, int head, float* shared) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const auto dim = static_cast<int>(a.shape.head_dim);
  const auto queries = static_cast<int>(a.shape.query_heads);
  const bool is_query = head < queries;
  const PagedProjections& from = a.projections;
  const bool mine = lane * lane_dims < dim;
  float w[lane_dims];
  load_weight(is_query ? from.q_norm : from.k_norm, lane, dim, w);
  Place places[rows] = {};
  if (!is_query) {
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      const int64_t row = min(first_row + r, a.batch.rows - 1);
      places[r] =
          place_of<format>(a, a.batch.sequence[a.batch.sequence_of[row]], row, head - queries);
    }
  }
  wait_for_earlier_kernels();

  uint4 bits[rows];
  Rotation rotations[rows];
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    const int64_t row = min(first_row + r, a.batch.rows - 1);
    const Bf16* source = is_query ? from.q_gate + row * from.q_gate_stride + head * 2 * dim
                                  : from.k + row * from.k_stride + (head - queries) * dim;
    bits[r] = mine ? reinterpret_cast<const uint4*>(source)[lane] : uint4{};
    rotations[r].load(from, row, lane);
  }
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    const int64_t row = first_row + r;
    if (row >= a.batch.rows) return;
    float x[lane_dims];
    widen(bits[r], x);
    prepare_head(x, lane, dim, w, from.eps, rotations[r], static_cast<int>(from.half), shared);
    if (!mine) continue;
    if (is_query)
      reinterpret_cast<uint4*>(a.q + row * a.q_stride + head * dim)[lane] = narrow(x);
    else
      store_key<format>(places[r].keys, places[r].slot, dim, lane, cached<format>(x));
  }
}

// Sixteen rows' values, the first at a multiple of 16 positions.
__device__ void store_sixteen(const Bf16* source, int64_t stride, std::byte* values, int slot,
                              int dim, int lane) {
  constexpr int sixteen = 16;
  uint4 bits[sixteen];
#pragma unroll
  for (int r = 0; r < sixteen; ++r)
    bits[r] = reinterpret_cast<const uint4*>(source + r * stride)[lane];
  uint4* const to = reinterpret_cast<uint4*>(values) + slot / sixteen * dim + lane * lane_dims;
#pragma unroll
  for (int i = 0; i < lane_dims; ++i) {
    const auto value = [&](int r) {
      const uint32_t words[] = {bits[r].x, bits[r].y, bits[r].z, bits[r].w};
      return i % 2 == 0 ? low_value(words[i / 2]) : high_value(words[i / 2]);
    };
    uint32_t words[4];
#pragma unroll
    for (int t = 0; t < 4; ++t)  // as f8_value_byte
      words[t] = f8_pair(value(2 * t), value(2 * t + 1)) |
                 f8_pair(value(2 * t + 8), value(2 * t + 9)) << 16;
    to[i] = {words[0], words[1], words[2], words[3]};
  }
}

template <KvFormat format>
__device__ void store_values(const Prepare& a, int64_t row, int kv_head) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const auto dim = static_cast<int>(a.shape.head_dim);
  const SequenceRows sequence = a.batch.sequence[a.batch.sequence_of[row]];
  const Place place = place_of<format>(a, sequence, row, kv_head);
  wait_for_earlier_kernels();
  if (lane * lane_dims >= dim) return;
  const Bf16* source = a.projections.v + row * a.projections.v_stride + kv_head * dim;
  std::byte* const values = place.keys + page_positions * dim * element_bytes(format);
  if constexpr (format == KvFormat::f8) {
    const int64_t leader = row - place.slot % 16;
    if (leader >= sequence.first_row && leader + 16 <= sequence.first_row + sequence.rows) {
      if (leader == row)
        store_sixteen(source, a.projections.v_stride, values, place.slot, dim, lane);
      return;
    }
  }
  float x[lane_dims];
  widen(reinterpret_cast<const uint4*>(source)[lane], x);
  store_value<format>(values, place.slot, dim, lane, cached<format>(x));
}

// Warps: heads of queries and keys for every `rows` rows, then heads of values row by row.
template <KvFormat format, int rows>
__global__ void __launch_bounds__(warps* warp_lanes, 2) prepare_kernel(const Prepare a) {
  __shared__ __align__(16) float heads_in_turn[warps][widest_head];
  let_next_kernel_start();
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int64_t heads = a.shape.query_heads + a.shape.kv_heads;
  const int64_t first = (a.batch.rows + rows - 1) / rows * heads;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * warps + warp;
  if (item < first)
    prepare_rows<format, rows>(a, item / heads * rows, static_cast<int>(item % heads),
                               heads_in_turn[warp]);
  else if (item - first < a.batch.rows * a.shape.kv_heads)
    store_values<format>(a, (item - first) / a.shape.kv_heads,
                         static_cast<int>((item - first) % a.shape.kv_heads));
  else
    wait_for_earlier_kernels();
}

template <KvFormat format, int rows>
void launch_rows(cudaStream_t stream, const Prepare& prepare) {
  const PagedShape& shape = prepare.shape;
  const int64_t items =
      (prepare.batch.rows + rows - 1) / rows * (shape.query_heads + shape.kv_heads) +
      prepare.batch.rows * shape.kv_heads;
  launch_overlapped("paged_prepare", prepare_kernel<format, rows>,
                    static_cast<unsigned>((items + warps - 1) / warps), warps * warp_lanes, 0,
                    stream, prepare);
}
template <KvFormat format>
void launch_format(cudaStream_t stream, const Prepare& prepare) {
  constexpr int64_t few_rows = 512;  // fill the GPU one by one
  if (prepare.batch.rows <= few_rows)
    launch_rows<format, 1>(stream, prepare);
  else
    launch_rows<format, 4>(stream, prepare);
}

}  // namespace

void paged_prepare(cudaStream_t stream, const Batch& batch, const PagedShape& shape,
                   const PagedCache& cache, const PagedProjections& projections, Bf16* q,
                   int64_t q_stride) {
  if (shape.head_dim > widest_head || shape.head_dim % 16 != 0)
    fail_cuda("paged attention takes heads of multiples of 16 dimensions up to 256");
  if (batch.rows == 0) return;
  const Prepare prepare{batch, shape, cache, projections, q, q_stride};
  if (shape.format == KvFormat::bf16)
    launch_format<KvFormat::bf16>(stream, prepare);
  else
    launch_format<KvFormat::f8>(stream, prepare);
}

}  // namespace qnext::ops::cuda
