// The prompt form: compute-bound, so everything serves the tensor cores.
//
// A block takes 128 queries of one kv head (its query heads x as many rows as fit; 16 rows of 8
// heads) and walks over the keys in tiles of 64 positions, a page each, in ascending order from 0
// to its own last row. Two warpgroups of consumers hold 64 queries each: wgmma for scores
// [64 queries, 64 keys] and out [64 queries, head_dim], the sums in registers (128 + 32 a thread at
// head_dim 256). A third warpgroup produces: one of its warps brings pages into a ring of slots,
// one for keys or values of a tile; pages hold the operands as wgmma reads them, so a slot is one
// bulk copy.
//
// The scores of a tile are multiplied while the weights of the tile before it are applied to the
// values, and the softmax of a tile runs beside the latter. Blocks with most keys start first.
//
// f8: products of e4m3. The tensor core keeps 13 bits behind the leading one of such sums, too few
// for the sum over a long context: it sums a tile (64 keys, 64 dimensions at a time), and ordinary
// instructions add the tile's sums to the rest while products of scores run.
#include "base/cuda_error.h"
#include "ops/attention/prompt_consumer_sm90.cuh"
#include "ops/attention/prompt_products_sm90.cuh"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

template <int width, bool exact>
__device__ void consume(const Prompt& a, const Place& place, const Consumer& who,
                        const Ring<KvFormat::bf16, width>& ring, std::byte* queries, float*) {
  const int dim = exact ? width : who.dim;
  std::byte* const mine = queries + who.index * (Layout<KvFormat::bf16, width>::query_bytes / 2);
  load_queries<width>(a, place, who, mine);
  publish_writes();
  group_barrier(2 + who.index);

  const float scale[2] = {a.inputs.scale * log2_e, a.inputs.scale * log2_e};
  const auto across = static_cast<uint32_t>(dim * 16);
  const uint64_t query_operand = operand(shared_address(mine), 128, width * 16);

  float out[width / 2];
#pragma unroll
  for (int i = 0; i < width / 2; ++i) out[i] = 0;
  float scores[32];
  uint32_t weights[4][4];
  Softmax<KvFormat::bf16> softmax;

  const auto start_scores = [&](int tile) {
    const int item = keys_item(tile);
    ring.wait_full(item);
    const uint64_t keys = operand(ring.slot(item), 128, across);
    products_fence();
#pragma unroll
    for (int s = 0; s < width / 16; ++s) {  // 256 bytes a step; behind dim: zeros times anything
      const uint64_t of_keys = keys + 16 * (exact || 16 * s < dim ? s : 0);
      product<true>(scores, query_operand + 16 * s, of_keys, s > 0);
    }
    products_commit();
  };
  const auto start_out = [&](int tile) {
    const int item = values_item(tile, place.tiles);
    ring.wait_full(item);
    const uint64_t values = operand(ring.slot(item), across, 128);
    products_fence();
#pragma unroll
    for (int s = 0; s < tile_keys / 16; ++s) product_add(out, weights[s], values + s * (dim * 2));
    products_commit();
  };
  const auto weigh = [&](int tile) {
    const int begin = tile * tile_keys;
    const int limit[2] = {who.position[0] - begin, who.position[1] - begin};
    return softmax.take(scores, scale, begin + tile_keys - 1 > who.first_position, limit,
                        who.lane % 4);
  };

  start_scores(0);
  products_wait<0>();
  sums_ready(scores);
  ring.release(keys_item(0));
  weigh(0);
  pack_weights(scores, weights);
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
    pack_weights(scores, weights);
  }
  start_out(place.tiles - 1);
  const Outlet<width, exact> outlet(a, place, who);  // comes while the last product runs
  products_wait<0>();
  sums_ready(out);
  outlet.store(who, out, softmax.sum);
}

template <int width, bool exact>
__device__ void consume(const Prompt& a, const Place& place, const Consumer& who,
                        const Ring<KvFormat::f8, width>& ring, std::byte* queries, float* units) {
  constexpr int block_dims = 64;  // whose sums of a tile are in registers at a time
  constexpr int blocks = width / block_dims;
  constexpr int steps_a_block = width / 32 / blocks;  // of the scores
  const int dim = exact ? width : who.dim;
  std::byte* const mine = queries + who.index * (Layout<KvFormat::f8, width>::query_bytes / 2);
  load_queries_f8<width>(a, place, who, mine, units + who.index * group_queries);
  publish_writes();
  group_barrier(2 + who.index);

  const float scale[2] = {a.inputs.scale * log2_e * units[who.query(0)],
                          a.inputs.scale * log2_e * units[who.query(1)]};
  const uint64_t query_operand = operand(shared_address(mine), 128, width * 8);

  float out[width / 2];
#pragma unroll
  for (int i = 0; i < width / 2; ++i) out[i] = 0;
  float scores[32], of_tile[32];
  uint32_t weights[2][4];
  Softmax<KvFormat::f8> softmax;
  bool higher = false;

  // The part of the scores that is multiplied beside `block`.
  const auto start_scores = [&](uint32_t slot, int block) {
    const auto across = static_cast<uint32_t>(dim * 8);
    const uint64_t keys = operand(slot, 128, across);
#pragma unroll
    for (int i = 0; i < steps_a_block; ++i) {
      const int s = block * steps_a_block + i;
      uint64_t of_keys = keys + 16 * s;
      // Behind dim zeros times anything: the last 16 dimensions, twice.
      if (!exact && 32 * s + 32 > dim) of_keys = operand(slot + (dim / 16 - 1) * 128, 0, across);
      product<false>(scores, query_operand + 16 * s, of_keys, s > 0);
    }
    products_commit();
  };
  const auto start_out = [&](uint32_t slot, int block) {
    const uint64_t values =
        operand(slot, static_cast<uint32_t>(dim * 16), 128) + block_dims * block;
    product_f8(of_tile, weights[0], values, false);
    product_f8(of_tile, weights[1], values + dim * 2, true);
    products_commit();
  };
  const auto scale_out = [&] {
    if (higher) {  // else every factor is 1
#pragma unroll
      for (int i = 0; i < width / 2; ++i) out[i] *= softmax.kept[i / 2 % 2];
    }
  };
  const auto add_tile = [&](int block) {
    sums_ready(of_tile);
#pragma unroll
    for (int i = 0; i < 32; ++i)
      out[32 * block + i] = fmaf(of_tile[i], softmax.factor[i / 2 % 2], out[32 * block + i]);
  };
  const auto weigh = [&](int tile) {
    const int begin = tile * tile_keys;
    const int limit[2] = {who.position[0] - begin, who.position[1] - begin};
    higher = softmax.take(scores, scale, begin + tile_keys - 1 > who.first_position, limit,
                          who.lane % 4);
    pack_weights(scores, weights);
  };

  ring.wait_full(keys_item(0));
  products_fence();
#pragma unroll
  for (int block = 0; block < blocks; ++block) start_scores(ring.slot(keys_item(0)), block);
  products_wait<0>();
  sums_ready(scores);
  ring.release(keys_item(0));
  weigh(0);
  for (int tile = 1; tile < place.tiles; ++tile) {
    const int keys = keys_item(tile), values = values_item(tile - 1, place.tiles);
    ring.wait_full(keys);
    ring.wait_full(values);
#pragma unroll
    for (int block = 0; block < blocks; ++block) {
      products_fence();
      start_out(ring.slot(values), block);
      start_scores(ring.slot(keys), block);
      if (block == 0) scale_out();
      products_wait<1>();
      add_tile(block);
    }
    products_wait<0>();
    sums_ready(scores);
    ring.release(keys);
    ring.release(values);
    weigh(tile);
  }
  const int values = values_item(place.tiles - 1, place.tiles);
  ring.wait_full(values);
  scale_out();
#pragma unroll
  for (int block = 0; block < blocks; ++block) {
    products_fence();
    start_out(ring.slot(values), block);
    products_wait<0>();
    add_tile(block);
  }
  const Outlet<width, exact> outlet(a, place, who);
  outlet.store(who, out, softmax.sum);
}

template <KvFormat format, int width, bool exact>
__global__ void __launch_bounds__(threads, 1) prompt_kernel(const Prompt a) {
  using L = Layout<format, width>;
  extern __shared__ std::byte shared_memory[];
  std::byte* const queries = shared_memory + (128 - shared_address(shared_memory) % 128) % 128;
  std::byte* const data = queries + L::query_bytes;
  float* const units = reinterpret_cast<float*>(data + L::slots * L::slot_bytes);
  const uint32_t barriers = shared_address(units) + L::units_bytes;
  const Ring<format, width> ring{data, barriers, barriers + L::slots * 8, barriers + L::slots * 16};
  if (threadIdx.x == 0) {
    for (int i = 0; i < L::slots; ++i) {
      barrier_init(ring.full + 8 * i, 1);
      barrier_init(ring.empty + 8 * i, 2 * group_threads / warp_lanes);
    }
    barrier_init(ring.cut, 1);
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
    give_registers<producer_registers>();
    if (threadIdx.x < warp_lanes) produce(a, place, kv_head, dim, ring);
  } else {
    take_registers<consumer_registers>();
    consume<width, exact>(a, place, Consumer(place, kv_head, group, dim), ring, queries, units);
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
