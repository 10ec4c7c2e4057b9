// Dense products of many rows. The ladder: prompt_pipeline.cuh's tiles; rows of x come through the
// copy engine; a persistent grid walks the tiles in bands.
#include <algorithm>
#include <limits>

#include "base/cuda_error.h"
#include "ops/launch_cuda.cuh"
#include "ops/matmul/prompt_epilogue.cuh"
#include "ops/matmul/prompt_matmul_cuda.h"
#include "ops/sm90/tensor_map.h"

namespace qnext::ops::cuda {

namespace {

using namespace prompt;

struct Product {
  Weights weights;
  int64_t features = 0;
  int rows = 0;
  int feature_tiles = 0;
  int row_tiles = 0;
  PromptOutput output;
  const float* unit = nullptr;  // of rows of e4m3
  bool whole_runs = false;      // rows of the output are aligned for 16-byte stores
};

struct Tile {
  int feature_tile, row_tile;
};

// The grid's tiles at one time should share weights and rows in L2: bands of 12 feature tiles
// (3072 features; 132 SMs take 11 row tiles of one), in which the feature changes first.
constexpr int band = 12;

__device__ Tile tile_of(const Product& product, int index) {
  const int band_tiles = band * product.row_tiles;
  const int first = index / band_tiles * band;
  const int width = min(band, product.feature_tiles - first);
  const int within = index % band_tiles;
  return {first + within % width, within / width};
}

template <int N>
__device__ void store_tile(const Product& product, Tile tile, int first_strip,
                           const float (&sum)[blocks_a_thread][N / 2]) {
  const PromptOutput& output = product.output;
  const int64_t feature =
      int64_t{tile.feature_tile} * tile_features + int64_t{first_strip} * tile_rows;
  const int64_t first_row = int64_t{tile.row_tile} * N;
  const int rows = min(N, product.rows - static_cast<int>(first_row));
  if (output.kind == PromptOutput::Kind::bf16_store) {
    const int own = static_cast<int>(threadIdx.x) % warp_lanes / 4;
    store_bf16<N>(sum, static_cast<Bf16*>(output.y) + first_row * output.stride, output.stride,
                  feature, product.features, product.whole_runs,
                  [&](int j) { return 8 * j + own < rows ? 8 * j + own : -1; });
    return;
  }
  float* y = static_cast<float*>(output.y) + first_row * output.stride;
  if (output.kind == PromptOutput::Kind::fp32_add)
    store_fp32<N, true>(sum, y, output.stride, rows, feature, product.features);
  else
    store_fp32<N, false>(sum, y, output.stride, rows, feature, product.features);
}

template <PackedFormat format, RowFormat row_format, int N>
__global__ void __launch_bounds__(threads, 1)
    prompt_matmul_kernel(const Product product, const __grid_constant__ CUtensorMap map,
                         const __grid_constant__ CUtensorMap weight_map) {
  extern __shared__ std::byte shared[];
  using Stages = Stages<format, row_format>;
  const Stages stages(shared);
  if (threadIdx.x == 0) stages.set_up(1);
  __syncthreads();
  wait_for_earlier_kernels();
  let_next_kernel_start();

  const int tiles = product.feature_tiles * product.row_tiles;
  const int group = static_cast<int>(threadIdx.x) / group_threads;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  Position<Stages::count> at;
  if (group == multiplying_groups) {
    sm90::give_registers_back<copying_registers>();
    if (warp != multiplying_warps) return;
    for (int i = static_cast<int>(blockIdx.x); i < tiles; i += static_cast<int>(gridDim.x)) {
      const Tile tile = tile_of(product, i);
      const int first_row = tile.row_tile * N;
      // Units are padded to whole fours.
      const int unit_bytes =
          row_format == RowFormat::f8 ? (min(N, product.rows - first_row) + 3) / 4 * 16 : 0;
      copy_weights(
          stages, at, product.weights, tile.feature_tile * tile_strips, &weight_map,
          tile.feature_tile * tile_strips,
          [&](bool last) { return N * Stages::row_bytes + (last ? unit_bytes : 0); },
          [&](int stage, int k, bool last) {
            Barrier* full = &stages.control->full[stage];
            sm90::copy_box(stages.rows(stage), &map, k * static_cast<int>(tile_columns), first_row,
                           full);
            if (last && unit_bytes > 0)
              sm90::bulk_copy(stages.control->unit[stage], product.unit + first_row,
                              static_cast<uint32_t>(unit_bytes), full);
          });
    }
  } else {
    sm90::take_registers<multiplying_registers>();
    const int first_strip = warp * blocks_a_thread;
    for (int i = static_cast<int>(blockIdx.x); i < tiles; i += static_cast<int>(gridDim.x)) {
      float sum[blocks_a_thread][N / 2];
      multiply_tile<N>(stages, at, product.weights.column_tiles, first_strip, nullptr, sum);
      store_tile<N>(product, tile_of(product, i), first_strip, sum);
    }
  }
}

// The rows of a product: `unit` is null where they are bf16. Stride in values.
struct Rows {
  const void* values;
  int64_t stride;
  const float* unit;
};

template <PackedFormat format, RowFormat row_format, int N>
void launch(cudaStream_t stream, const Rows& x, int64_t columns, Product product) {
  const CUtensorMap map =
      row_format == RowFormat::bf16
          ? sm90::map_bf16_rows(x.values, product.rows, columns, x.stride, N)
          : sm90::map_f8_rows(x.values, product.rows, f8_columns(columns), x.stride, N);
  const CUtensorMap weight_map =
      sm90::map_tiles(product.weights.tiles, tile_bytes(format), product.weights.column_tiles,
                      product.weights.strips, tile_strips);
  product.row_tiles = (product.rows + N - 1) / N;
  const int tiles = product.row_tiles * product.feature_tiles;
  launch_overlapped("prompt_matmul", prompt_matmul_kernel<format, row_format, N>,
                    static_cast<unsigned>(std::min(tiles, multiprocessors())), threads,
                    Stages<format, row_format>::shared_bytes, stream, product, map, weight_map);
}

// Rows of a tile among 64, 128, 160 and 192: the fewest rounds of the grid times their length. A
// tile costs about 96 rows more than it has (measured: its start, its end, and in every stage what
// does not depend on its rows).
int choose_rows(int rows, int feature_tiles) {
  int best = 64;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int n : {192, 160, 128, 64}) {
    const int64_t tiles = int64_t{(rows + n - 1) / n} * feature_tiles;
    const int64_t cost = (tiles + multiprocessors() - 1) / multiprocessors() * (n + 96);
    if (cost >= least) continue;
    least = cost;
    best = n;
  }
  return best;
}

template <PackedFormat format, RowFormat row_format = RowFormat::bf16>
void launch_best(cudaStream_t stream, const Rows& x, int64_t columns, const Product& product) {
  switch (choose_rows(product.rows, product.feature_tiles)) {
    case 192:
      return launch<format, row_format, 192>(stream, x, columns, product);
    case 160:
      return launch<format, row_format, 160>(stream, x, columns, product);
    case 128:
      return launch<format, row_format, 128>(stream, x, columns, product);
    default:
      return launch<format, row_format, 64>(stream, x, columns, product);
  }
}

Product product_of(const PackedMatrix& w, int64_t rows, const PromptOutput& output) {
  Product product;
  product.weights = Weights(w);
  product.features = w.rows;
  product.rows = static_cast<int>(rows);
  product.feature_tiles = (product.weights.strips + tile_strips - 1) / tile_strips;
  product.output = output;
  product.whole_runs =
      output.stride % 8 == 0 && reinterpret_cast<uintptr_t>(output.y) % sizeof(uint4) == 0;
  return product;
}

}  // namespace

void prompt_matmul(cudaStream_t stream, const Bf16* x, int64_t x_stride, int64_t rows,
                   const PackedMatrix& w, const PromptOutput& output) {
  if (rows == 0 || w.rows == 0) return;
  const Product product = product_of(w, rows, output);
  const Rows from{x, x_stride, nullptr};
  switch (w.format) {
    case PackedFormat::bf16:
      return launch_best<PackedFormat::bf16>(stream, from, w.columns, product);
    case PackedFormat::f8:
      return launch_best<PackedFormat::f8>(stream, from, w.columns, product);
    case PackedFormat::q4:
      return launch_best<PackedFormat::q4>(stream, from, w.columns, product);
  }
}

void prompt_matmul(cudaStream_t stream, const F8Rows& x, int64_t rows, const PackedMatrix& w,
                   const PromptOutput& output) {
  if (w.format != PackedFormat::f8) fail_cuda("rows of e4m3 are multiplied with f8 weights only");
  if (rows == 0 || w.rows == 0) return;
  Product product = product_of(w, rows, output);
  product.unit = x.unit;
  launch_best<PackedFormat::f8, RowFormat::f8>(stream, {x.values, x.stride, x.unit}, w.columns,
                                               product);
}

}  // namespace qnext::ops::cuda
