// The prompt form: compute-bound, so everything serves the tensor cores.
//
// A block takes 128 queries of one kv head (its query heads x as many rows as fit; 16 rows of 8
// heads) and walks over the keys in tiles of 64 positions, a page each, in ascending order from 0
// to its own last row. Two warpgroups of consumers hold 64 queries each: wgmma for scores
// [64 queries, 64 keys] and out [64 queries, head_dim], the sums in registers (128 + 32 a thread at
// head_dim 256). A third warpgroup produces: it brings pages into a ring of slots, one for keys or
// values of a tile; pages hold the operands as wgmma reads them, so a slot is one bulk copy.
//
// The scores of a tile are multiplied while the weights of the tile before it are applied to the
// values, and the softmax of a tile runs beside the latter. Blocks with most keys start first.
//
// f8: pages are staged and widened to f16 (exactly) by the producers.
#include "base/cuda_error.h"
#include "ops/attention/prompt_producer_sm90.cuh"
#include "ops/attention/prompt_products_sm90.cuh"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

// A warpgroup's queries into shared memory: [64 / 8][width / 8][8 queries][16 bytes], zeros behind
// dim. Queries behind the last repeat it; nobody reads their results.
template <KvFormat format, int width>
__device__ void load_queries(const Prompt& a, const Place& place, int kv_head, int dim, int group,
                             int first_query, std::byte* to) {
  constexpr int chunks = width / 8;
  const int warp = static_cast<int>(threadIdx.x) % group_threads / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  for (int eight = warp; eight < group_queries / 8; eight += group_threads / warp_lanes) {
    const int query = min(first_query + eight * 8 + lane % 8, place.rows * group - 1);
    const Bf16* from =
        a.inputs.q + (place.sequence.first_row + place.first + query / group) * a.inputs.q_stride +
        (kv_head * group + query % group) * dim;
    uint4 words[chunks / 4];  // no branches: the loads go together
#pragma unroll
    for (int i = 0; i < chunks / 4; ++i)
      words[i] = *reinterpret_cast<const uint4*>(from + min((i * 4 + lane / 8) * 8, dim - 8));
#pragma unroll
    for (int i = 0; i < chunks / 4; ++i) {
      const int chunk = i * 4 + lane / 8;
      uint4 operand = words[i];
      if constexpr (format == KvFormat::f8)
        operand = {bf16_to_f16(operand.x), bf16_to_f16(operand.y), bf16_to_f16(operand.z),
                   bf16_to_f16(operand.w)};
      if (chunk * 8 >= dim) operand = uint4{};
      reinterpret_cast<uint4*>(to)[(eight * chunks + chunk) * 8 + lane % 8] = operand;
    }
  }
}

// The running softmax of a thread's two rows (g and g + 8 of its warp's 16).
struct Softmax {
  float highest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  // of this lane's columns
  float kept[2];

  // Scores become weights; true if a maximum of the warp rose. limit: the last key that counts,
  // from the tile's first.
  __device__ bool take(float (&s)[32], float scale, bool masked, const int (&limit)[2], int t) {
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
      top = fmaxf(top * scale, highest[r]);
      const float base = top == -INFINITY ? 0.0f : top;  // no inf - inf
      higher |= top > highest[r];
      kept[r] = exp2_fast(highest[r] - base);
      highest[r] = top;
      float of_tile = 0;
#pragma unroll
      for (int i = 0; i < 32; i += 4) {
        float& first = s[i + 2 * r];
        float& second = s[i + 2 * r + 1];
        first = exp2_fast(fmaf(first, scale, -base));
        second = exp2_fast(fmaf(second, scale, -base));
        of_tile += first + second;
      }
      sum[r] = fmaf(sum[r], kept[r], of_tile);
    }
    return __any_sync(whole_warp, higher);
  }
};

// Weights as A fragments, 16 keys each.
template <KvFormat format>
__device__ inline void pack_weights(const float (&s)[32], uint32_t (&p)[4][4]) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      p[k][i] = operand_pair<format>(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
}

template <KvFormat format, int width, bool exact>
__device__ void consume(const Prompt& a, const Place& place, int kv_head, int group,
                        const Ring<format, width>& ring, std::byte* queries) {
  constexpr bool bf16 = format == KvFormat::bf16;
  const int dim = exact ? width : static_cast<int>(a.shape.head_dim);
  const int thread = static_cast<int>(threadIdx.x);
  const int consumer = thread / group_threads - 1;
  const int warp = thread % group_threads / warp_lanes;
  const int lane = thread % warp_lanes;
  const int g = lane / 4, t = lane % 4;
  std::byte* const mine = queries + consumer * (Layout<format, width>::query_bytes / 2);
  load_queries<format, width>(a, place, kv_head, dim, group, consumer * group_queries, mine);
  publish_writes();
  group_barrier(2 + consumer);

  const int first_position = place.sequence.first_position + place.first;
  int position[2];  // of the thread's two queries; -1: no such
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = (consumer * group_queries + warp * 16 + r * 8 + g) / group;
    position[r] = row < place.rows ? first_position + row : -1;
  }
  const float scale = a.inputs.scale * log2_e;
  const auto across = static_cast<uint32_t>(dim * 16);
  const uint64_t query_operand = operand(shared_address(mine), 128, width * 16);

  float out[width / 2];
#pragma unroll
  for (int i = 0; i < width / 2; ++i) out[i] = 0;
  float scores[32];
  uint32_t weights[4][4];
  Softmax softmax;

  const auto start_scores = [&](int tile) {
    const int item = keys_item(tile);
    ring.wait_full(item);
    const uint64_t keys = operand(ring.slot(item), 128, across);
    products_fence();
#pragma unroll
    for (int s = 0; s < width / 16; ++s) {  // 256 bytes a step; behind dim: zeros times anything
      const uint64_t of_keys = keys + 16 * (exact || 16 * s < dim ? s : 0);
      product<bf16>(scores, query_operand + 16 * s, of_keys, s > 0);
    }
    products_commit();
  };
  const auto start_out = [&](int tile) {
    const int item = values_item(tile, place.tiles);
    ring.wait_full(item);
    const uint64_t values = operand(ring.slot(item), across, 128);
    products_fence();
#pragma unroll
    for (int s = 0; s < tile_keys / 16; ++s)
      product_add<bf16>(out, weights[s], values + s * (dim * 2));
    products_commit();
  };
  const auto weigh = [&](int tile) {
    const int begin = tile * tile_keys;
    const int limit[2] = {position[0] - begin, position[1] - begin};
    return softmax.take(scores, scale, begin + tile_keys - 1 > first_position, limit, t);
  };

  start_scores(0);
  products_wait<0>();
  sums_ready(scores);
  ring.release(keys_item(0));
  weigh(0);
  pack_weights<format>(scores, weights);
  for (int tile = 1; tile < place.tiles; ++tile) {
    start_scores(tile);
    start_out(tile - 1);
    products_wait<1>();
    sums_ready(scores);
    ring.release(keys_item(tile));
    const bool higher = weigh(tile);
    products_wait<0>();
    sums_ready(out);
    ring.release(values_item(tile - 1, place.tiles));
    if (higher) {  // else every factor is 1
#pragma unroll
      for (int i = 0; i < width / 2; ++i) out[i] *= softmax.kept[i / 2 % 2];
    }
    pack_weights<format>(scores, weights);
  }
  start_out(place.tiles - 1);

  // The gates come while the last product runs.
  uint32_t gates[2][width / 8];
  bool exists[2];
  Bf16* to[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int query = consumer * group_queries + warp * 16 + r * 8 + g;
    exists[r] = query / group < place.rows;
    const int near = min(query, place.rows * group - 1);
    const int64_t row = place.sequence.first_row + place.first + near / group;
    const int head = kv_head * group + near % group;
    to[r] = a.inputs.out + row * a.inputs.out_stride + head * dim + 2 * t;
    const Bf16* gate = a.inputs.gate + row * a.inputs.gate_stride + head * 2 * dim + 2 * t;
#pragma unroll
    for (int n = 0; n < width / 8; ++n)
      gates[r][n] =
          *reinterpret_cast<const uint32_t*>(gate + (exact ? 8 * n : min(8 * n, dim - 8)));
  }
  products_wait<0>();
  sums_ready(out);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = softmax.sum[r];
    sum += __shfl_xor_sync(whole_warp, sum, 1);
    sum += __shfl_xor_sync(whole_warp, sum, 2);
    const float factor = 1.0f / sum;
    if (!exists[r]) continue;
#pragma unroll
    for (int n = 0; n < width / 8; ++n)
      if (exact || 8 * n < dim)
        *reinterpret_cast<uint32_t*>(to[r] + 8 * n) =
            bf16_pair(out[4 * n + 2 * r] * factor * gate_factor(low_value(gates[r][n])),
                      out[4 * n + 2 * r + 1] * factor * gate_factor(high_value(gates[r][n])));
  }
}

template <KvFormat format, int width, bool exact>
__global__ void __launch_bounds__(threads, 1) prompt_kernel(const Prompt a) {
  using L = Layout<format, width>;
  extern __shared__ std::byte shared_memory[];
  std::byte* const queries = shared_memory + (128 - shared_address(shared_memory) % 128) % 128;
  std::byte* const data = queries + L::query_bytes;
  std::byte* const stages = data + L::slots * L::slot_bytes;
  const uint32_t barriers = shared_address(stages + L::stages * L::stage_bytes);
  const Ring<format, width> ring{data, barriers, barriers + L::slots * 8, barriers + L::slots * 16};
  if (threadIdx.x == 0) {
    for (int i = 0; i < L::slots; ++i) {
      barrier_init(ring.full + 8 * i, 1);
      barrier_init(ring.empty + 8 * i, 2 * group_threads / warp_lanes);
    }
    barrier_init(ring.staged, 1);
    barrier_init(ring.staged + 8, 1);
    barrier_init_done();
  }
  __syncthreads();
  let_next_kernel_start();
  const int dim = exact ? width : static_cast<int>(a.shape.head_dim);
  const int group = static_cast<int>(a.shape.query_heads / a.shape.kv_heads);
  const int kv_head = static_cast<int>(blockIdx.y);
  const Place place = find_place(a.batch, gridDim.x - 1 - blockIdx.x, tile_queries / group);
  wait_for_earlier_kernels();  // the batch is older than the kernels that still run
  if (!place.found) return;
  if (threadIdx.x < group_threads) {
    give_registers<Registers<format>::producer>();
    if constexpr (format == KvFormat::f8)
      produce_f8<width, exact>(a, place, kv_head, ring, stages);
    else if (threadIdx.x < warp_lanes)
      produce_bf16<width>(a, place, kv_head, dim, ring);
  } else {
    take_registers<Registers<format>::consumer>();
    consume<format, width, exact>(a, place, kv_head, group, ring, queries);
  }
}

template <KvFormat format, int width, bool exact = true>
void launch_width(cudaStream_t stream, const Prompt& prompt, dim3 grid) {
  launch_overlapped("prompt attention", prompt_kernel<format, width, exact>, grid, threads,
                    Layout<format, width>::bytes, stream, prompt);
}
template <KvFormat format>
void launch_format(cudaStream_t stream, const Prompt& prompt, dim3 grid) {
  switch (prompt.shape.head_dim) {
    case 256:
      return launch_width<format, 256>(stream, prompt, grid);
    case 128:
      return launch_width<format, 128>(stream, prompt, grid);
    case 64:
      return launch_width<format, 64>(stream, prompt, grid);
    default:
      return launch_width<format, 256, false>(stream, prompt, grid);
  }
}

}  // namespace

void paged_attention_prompt(cudaStream_t stream, const Batch& batch, const PagedShape& shape,
                            const PagedCache& cache, const PagedAttention& inputs, int64_t rows) {
  if (shape.head_dim > widest_head || shape.head_dim % 16 != 0)
    fail_cuda("paged attention takes heads of multiples of 16 dimensions up to 256");
  const int64_t group = shape.query_heads / shape.kv_heads;
  if (group > tile_queries) fail_cuda("paged attention takes up to 128 query heads a kv head");
  if (batch.sequences == 0 || rows == 0) return;
  const int64_t tile_rows = tile_queries / group;
  // Every sequence may leave its last tile all but empty.
  const int64_t tiles = (rows + batch.sequences * (tile_rows - 1)) / tile_rows;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(shape.kv_heads));
  const Prompt prompt{batch, shape, cache, inputs};
  if (shape.format == KvFormat::bf16)
    launch_format<KvFormat::bf16>(stream, prompt, grid);
  else
    launch_format<KvFormat::f8>(stream, prompt, grid);
}

}  // namespace qnext::ops::cuda
