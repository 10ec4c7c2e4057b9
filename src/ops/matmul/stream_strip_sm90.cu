// One normed row of 2048 columns against bf16 strips, at most one for a block: the router of one
// row. stream_row_sm90.cu takes its strip in two pieces by the way that fits every size; here a
// warp takes one run of 128 columns of the only piece, in the same order of sums: 2.3 us in place
// of 2.8 from this launch's wait to the next one's.
#include "base/cuda_error.h"
#include "ops/launch_cuda.cuh"
#include "ops/matmul/stream_rows.cuh"
#include "ops/matmul/stream_tile.cuh"

namespace qnext::ops::cuda {

using namespace few_rows;

namespace {

constexpr int strip_warps = 16;
constexpr int strip_columns = strip_warps * run_columns;
constexpr int strip_tiles = strip_warps * run_tiles;
constexpr int run_bytes = run_tiles * static_cast<int>(tile_bytes(PackedFormat::bf16));

struct StripJob {
  StreamInput input;
  StreamedWeight product[most_stream_products];
  int products;
};

struct StripMemory {
  alignas(128) std::byte weights[strip_warps][run_bytes];
  alignas(16) std::byte x[strip_tiles * 128];  // bf16, in the order of B fragments
  alignas(16) float norm[norm_floats];
  float sums[strip_warps][tile_rows];
  sm90::Barrier full;
};

__global__ void __launch_bounds__(strip_warps* warp_lanes, 2)
    strip_kernel(const __grid_constant__ StripJob job) {
  extern __shared__ __align__(128) std::byte bytes[];
  StripMemory& memory = *reinterpret_cast<StripMemory*>(bytes);
  const auto thread = static_cast<int>(threadIdx.x), strip = static_cast<int>(blockIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  int product = 0;
  while (product + 1 < job.products && strip >= job.product[product + 1].first_strip) ++product;
  const StreamedWeight& weight = job.product[product];
  const int own = strip - weight.first_strip;
  if (thread == 0) {
    sm90::set_up(&memory.full, 1);
    sm90::publish_barriers();
    sm90::arrive_expecting(&memory.full, sizeof memory.weights);
    sm90::bulk_copy_once(memory.weights,
                         weight.tiles + int64_t{own} * static_cast<int>(sizeof memory.weights),
                         sizeof memory.weights, &memory.full);
  }
  const StagedRows staged{memory.x, memory.norm, 0, 1, strip_tiles, strip_columns};
  QuickNorm quick;
  quick.load_weight(job.input, staged);
  const int output = own * static_cast<int>(tile_rows) + thread;
  const bool stores = thread < tile_rows && output < weight.rows;
  __syncthreads();
  let_next_kernel_start();
  wait_for_earlier_kernels();
  quick.stage(job.input, staged, job.input.normed && strip == 0);
  __syncthreads();
  sm90::wait(&memory.full, 0);
  const std::byte* const data = memory.weights[warp];
  const std::byte* const row = memory.x + warp * run_tiles * 128 + lane % 4 * 32;
  float c[4] = {};
#pragma unroll
  for (int tile = 0; tile < run_tiles; ++tile)
    add_tile<PackedFormat::bf16>(c, data + tile * tile_bytes(PackedFormat::bf16), row + tile * 128,
                                 lane);
  if (lane % 4 == 0) {
    memory.sums[warp][lane / 4] = c[0];
    memory.sums[warp][lane / 4 + 8] = c[2];
  }
  __syncthreads();
  if (!stores) return;
  float value[strip_warps];
#pragma unroll
  for (int run = 0; run < strip_warps; ++run) value[run] = memory.sums[run][thread];
  float total = 0;
#pragma unroll
  for (int first = 0; first < strip_warps; first += part_runs) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < part_runs; ++i) sum += value[first + i];
    total += sum;
  }
  static_cast<float*>(weight.y)[output] = total;
}

}  // namespace

bool stream_matmul_strips(cudaStream_t stream, const StreamInput& input,
                          const StreamProduct* products, int count) {
  StripJob job{};
  job.input = input;
  job.products = count;
  const int strips = list_products(products, count, job.product);
  if (!input.residual || strips > multiprocessors()) return false;
  for (int i = 0; i < count; ++i)
    if (products[i].weight.format != PackedFormat::bf16 ||
        products[i].weight.columns != strip_columns || products[i].store != StreamStore::f32)
      return false;
  keep_all_shared(strip_kernel);
  launch_overlapped("stream_matmul_strips", strip_kernel, dim3(static_cast<unsigned>(strips)),
                    dim3(strip_warps * warp_lanes), sizeof(StripMemory), stream, job);
  return true;
}

}  // namespace qnext::ops::cuda
