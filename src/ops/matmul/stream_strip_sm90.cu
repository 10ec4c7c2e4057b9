// Normed rows of 2048 columns against bf16 strips, at most one for a block: the router of one row
// and of a few. stream_row_sm90.cu takes its strip in two pieces by the way that fits every size;
// here a warp takes one run of 128 columns of the only piece, in the same order of sums: 2.3 us in
// place of 2.8 from this launch's wait to the next one's.
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
  int rows;
};

struct StripMemory {
  alignas(128) std::byte weights[strip_warps][run_bytes];
  alignas(16) std::byte x[strip_tiles * 128];  // bf16, in the order of B fragments
  alignas(16) float norm[norm_floats];
  float sums[strip_warps][tile_rows];
  sm90::Barrier full;
};

// In the order of stream_matmul_cuda.h.
template <typename Run>
__device__ inline float sum_runs(Run&& run) {
  float value[strip_warps];
#pragma unroll
  for (int i = 0; i < strip_warps; ++i) value[i] = run(i);
  float total = 0;
#pragma unroll
  for (int first = 0; first < strip_warps; first += part_runs) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < part_runs; ++i) sum += value[first + i];
    total += sum;
  }
  return total;
}

// By one thread; those who wait for `full` see its set-up behind a __syncthreads().
template <typename Memory>
__device__ inline void fetch_strip(Memory& memory, const StreamedWeight& weight, int own) {
  constexpr auto bytes = static_cast<uint32_t>(sizeof memory.weights);
  sm90::set_up(&memory.full, 1);
  sm90::publish_barriers();
  sm90::arrive_expecting(&memory.full, bytes);
  sm90::bulk_copy_once(memory.weights, weight.tiles + int64_t{own} * bytes, bytes, &memory.full);
}

// The warp's run against its part of a row.
template <typename Memory>
__device__ inline void add_warps_run(float (&c)[4], const Memory& memory, const std::byte* row) {
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const std::byte* const data = memory.weights[warp];
  const std::byte* const part = row + warp * run_tiles * 128 + lane % 4 * 32;
#pragma unroll
  for (int tile = 0; tile < run_tiles; ++tile)
    add_tile<PackedFormat::bf16>(c, data + tile * tile_bytes(PackedFormat::bf16), part + tile * 128,
                                 lane);
}

__global__ void __launch_bounds__(strip_warps* warp_lanes, 2)
    strip_kernel(const __grid_constant__ StripJob job) {
  extern __shared__ __align__(128) std::byte bytes[];
  StripMemory& memory = *reinterpret_cast<StripMemory*>(bytes);
  const auto thread = static_cast<int>(threadIdx.x), strip = static_cast<int>(blockIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  const StreamedWeight& weight = job.product[product_of_strip(job, strip)];
  const int own = strip - weight.first_strip;
  if (thread == 0) fetch_strip(memory, weight, own);
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
  float c[4] = {};
  add_warps_run(c, memory, memory.x);
  if (lane % 4 == 0) {
    memory.sums[warp][lane / 4] = c[0];
    memory.sums[warp][lane / 4 + 8] = c[2];
  }
  __syncthreads();
  if (!stores) return;
  const float total = sum_runs([&](int run) { return memory.sums[run][thread]; });
  static_cast<float*>(weight.y)[output] = total;
}

// --- Two to eight rows -------------------------------------------------------------------------

constexpr int strip_rows = 8;                           // at most: n of mma.m16n8k16
constexpr int strip_x_stride = strip_tiles * 128 + 16;  // rows n and n + 1 share no banks
static_assert(strip_columns == RowsNorm::columns);

struct StripsMemory {
  alignas(128) std::byte weights[strip_warps][run_bytes];
  alignas(16) std::byte x[strip_rows * strip_x_stride];
  float norm[strip_rows][norm_floats];
  float sums[strip_warps][strip_rows][tile_rows];
  sm90::Barrier full;
};

__global__ void __launch_bounds__(strip_warps* warp_lanes, 2)
    strips_kernel(const __grid_constant__ StripJob job) {
  extern __shared__ __align__(128) std::byte bytes[];
  StripsMemory& memory = *reinterpret_cast<StripsMemory*>(bytes);
  const auto thread = static_cast<int>(threadIdx.x), strip = static_cast<int>(blockIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  const StreamedWeight& weight = job.product[product_of_strip(job, strip)];
  const int own = strip - weight.first_strip;
  if (thread == 0) fetch_strip(memory, weight, own);
  const StagedRows staged{memory.x, memory.norm[0], strip_x_stride,
                          job.rows, strip_tiles,    strip_columns};
  float4 norm_weight[RowsNorm::shares];
#pragma unroll
  for (int i = 0; i < RowsNorm::shares; ++i)
    norm_weight[i] = reinterpret_cast<const float4*>(job.input.norm_weight)[RowsNorm::at(i)];
  const int row = thread / static_cast<int>(tile_rows);
  const int column = thread % static_cast<int>(tile_rows);
  const int output = own * static_cast<int>(tile_rows) + column;
  const bool stores = row < job.rows && output < weight.rows;
  __syncthreads();
  let_next_kernel_start();
  wait_for_earlier_kernels();
  RowsNorm::stage(
      job.input, staged, job.input.normed && strip == 0, [&](int i) { return norm_weight[i]; },
      [](uint32_t) {});
  __syncthreads();
  sm90::wait(&memory.full, 0);
  // Lanes without a row of their own read the last one, and their sums are dropped.
  float c[4] = {};
  add_warps_run(c, memory, memory.x + min(lane / 4, job.rows - 1) * strip_x_stride);
#pragma unroll
  for (int i = 0; i < 4; ++i) memory.sums[warp][lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] = c[i];
  __syncthreads();
  if (!stores) return;
  const float total = sum_runs([&](int run) { return memory.sums[run][row][column]; });
  static_cast<float*>(weight.y)[row * weight.stride + output] = total;
}

bool are_strips(const StreamProduct* products, int count) {
  int64_t strips = 0;
  for (int i = 0; i < count; ++i) {
    const PackedMatrix& weight = products[i].weight;
    if (weight.format != PackedFormat::bf16 || weight.columns != strip_columns ||
        products[i].store != StreamStore::f32)
      return false;
    strips += weight.row_tiles();
  }
  return strips <= multiprocessors();
}

}  // namespace

bool norms_quickly(const StreamProduct* products, int count, int64_t rows) {
  constexpr int64_t most_quick_rows = 4;  // measured: docs/performance.md
  return rows == 1 ||
         (rows <= most_quick_rows && products[0].weight.columns == RowsNorm::columns) ||
         (rows <= strip_rows && are_strips(products, count));
}

bool stream_matmul_strips(cudaStream_t stream, const StreamInput& input, int64_t rows,
                          const StreamProduct* products, int count) {
  if (!input.residual || rows > strip_rows || !are_strips(products, count)) return false;
  StripJob job{};
  job.input = input;
  job.products = count;
  job.rows = static_cast<int>(rows);
  const dim3 grid(static_cast<unsigned>(list_products(products, count, job.product)));
  const auto launch = [&](auto* kernel, size_t bytes) {
    keep_all_shared(kernel);
    launch_overlapped("stream_matmul_strips", kernel, grid, dim3(strip_warps * warp_lanes), bytes,
                      stream, job);
  };
  if (rows == 1)
    launch(strip_kernel, sizeof(StripMemory));
  else
    launch(strips_kernel, sizeof(StripsMemory));
  return true;
}

}  // namespace qnext::ops::cuda
