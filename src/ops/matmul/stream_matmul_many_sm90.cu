// 9 to 256 rows against streamed weights, in passes of 16, 32 or 64 rows; more than 64 rows of a
// large matrix go to stream_matmul_wide_sm90.cu. Memory still has the last word on a large matrix,
// but the tensor cores, the unpacking and the loads of the rows are close behind it, so each warp
// keeps one strip of 16 outputs and multiplies every unpacked weight with all rows of the pass; the
// warps of a block share the rows' 128 columns of the moment.
//
//   weights  each warp's own ring, as in stream_matmul_sm90.cu, filled before the wait as there.
//   rows     stages of 128 columns in shared memory that a warp of its own brings, as two boxes of
//            64 columns in the 128-byte swizzle (sm90/wgmma.cuh), read with ldmatrix. cp.async by
//            all warps, two stages ahead: 30 us for [12288 x 2048] in f8 at 64 rows; a bulk copy
//            of 256 bytes a row: 42 us.
//
// The sum of an output stays in one thread, in the order that stream_matmul_cuda.h promises.
#include <algorithm>

#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/launch_cuda.cuh"
#include "ops/matmul/stream_passes.cuh"
#include "ops/sm90/tensor_map.h"

namespace qnext::ops::cuda {

namespace {

constexpr int most_warps = 8;
template <int groups>  // of the rows: what memory takes to bring them, in runs
constexpr int row_stages = groups == 8   ? 5
                           : groups == 4 ? 5
                                         : 8;

template <int groups>
constexpr int box_bytes = groups * 8 * box_row_bytes;
template <int groups>
constexpr int stage_bytes = run_tiles* box_bytes<groups>;

template <int groups>
__host__ __device__ constexpr int shared_bytes(int warps) {
  return warps * slots * (slot_bytes + 16 + 8) + row_stages<groups> * (stage_bytes<groups> + 16);
}

// --- The rows ----------------------------------------------------------------------------------

// One lane brings the rows of a pass, a run's columns at a time; what lies outside comes as zeros.
template <int groups>
struct Rows {
  const PassJob& job;
  const CUtensorMap* map;
  std::byte* stages;  // [row_stages][run_tiles][groups * 8 rows][64 columns]
  sm90::Barrier* full;
  sm90::Barrier* empty;

  __device__ std::byte* stage(int i) const { return stages + i * stage_bytes<groups>; }
  __device__ void bring(int first_row) const {
    order_before_copies();
    Place place;
    for (int run = 0; run < job.runs; ++run) {
      sm90::wait(empty + place.at, place.parity ^ 1);
      copy_run(stage(place.at), map, job, run, first_row, groups * 8, full + place.at);
      place.advance(row_stages<groups>);
    }
  }
};

// The B fragments of two steps for 8 rows: lane l names chunk l / 8 of row l % 8.
__device__ inline void load_rows(Pair (&b)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
               : "r"(address));
}

// --- The products ------------------------------------------------------------------------------

// c += one tile times its columns of the rows, whose box is at `rows`.
template <PackedFormat format, int groups>
__device__ void add_tile(float (&c)[groups][4], const std::byte* tile_data, uint32_t rows,
                         int lane) {
  // So many at a time that their fragments fit beside the sums.
  constexpr int together = groups < 4 ? groups : 4;
  LaneTile<format> tile;
  tile.load(tile_data, lane);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int chunk = (half * 4 + lane / 8) ^ lane % 8;  // swizzled
    const uint32_t address = rows + static_cast<uint32_t>(lane % 8 * box_row_bytes + chunk * 16);
    Pair a[2][4];
    tile.fragment(2 * half, a[0]);
    tile.fragment(2 * half + 1, a[1]);
#pragma unroll
    for (int first = 0; first < groups; first += together) {
      Pair b[together][4];
#pragma unroll
      for (int j = 0; j < together; ++j)
        load_rows(b[j], address + static_cast<uint32_t>((first + j) * 8 * box_row_bytes));
#pragma unroll
      for (int step = 0; step < 2; ++step)
#pragma unroll
        for (int j = 0; j < together; ++j)
          multiply_add(c[first + j], a[step], b[j][2 * step], b[j][2 * step + 1]);
    }
  }
}

// sum += one run's sum.
template <PackedFormat format, int groups>
__device__ void add_run(float (&sum)[groups][4], const std::byte* tiles, int count, float2 scale,
                        uint32_t rows, int lane) {
  float c[groups][4] = {};
  for (int tile = 0; tile < count; ++tile)
    add_tile<format, groups>(c, tiles + tile * tile_bytes(format),
                             rows + static_cast<uint32_t>(tile * box_bytes<groups>), lane);
#pragma unroll
  for (int j = 0; j < groups; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (format == PackedFormat::f8) c[j][i] *= i < 2 ? scale.x : scale.y;
      sum[j][i] += c[j][i];
    }
}

template <int groups>
__device__ void store_sums(const StreamedWeight& weight, const float (&total)[groups][4],
                           int first_row, int rows, int64_t strip, int lane) {
#pragma unroll
  for (int j = 0; j < groups; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + 8 * j + lane % 4 * 2 + i % 2;
      const int64_t output = strip * tile_rows + lane / 4 + (i / 2) * 8;
      if (row >= rows || output >= weight.rows) continue;
      store_sum(weight, row, output, total[j][i], old_value(weight, row, output));
    }
}

// One warp's strip.
template <int groups>
struct Strip {
  const PassJob& job;
  const StreamedWeight& weight;
  int64_t strip;  // of the weight's
  int lane;
  std::byte* ring;
  float2* scales;
  sm90::Barrier* full;

  __device__ int at_once() const { return copy_runs(weight.format); }
  // By one lane.
  __device__ void fetch(int run, int slot) const {
    queue_copy(weight, job.column_tiles, strip, run, gridDim.x > 1, ring + slot * slot_bytes,
               scales + 2 * slot, full + slot);
  }
  __device__ void begin() const {
    if (lane != 0) return;
    for (int slot = 0; slot < slots; ++slot) sm90::set_up(full + slot, 2);
    sm90::publish_barriers();
    for (int slot = 0; slot < slots && slot * at_once() < job.runs; ++slot)
      fetch(slot * at_once(), slot);
  }
  __device__ void multiply(const Rows<groups>& rows, int first_row) const {
    float total[groups][4] = {}, sum[groups][4] = {};  // of all parts, and of this one
    Place slot, stage;
    int of_slot = 0;  // the run of the slot that is next
    for (int run = 0; run < job.runs; ++run) {
      if (of_slot == 0) sm90::wait(full + slot.at, slot.parity);
      const int bytes = static_cast<int>(tile_bytes(weight.format));
      const std::byte* tiles = ring + slot.at * slot_bytes + of_slot * run_tiles * bytes;
      const float2 scale =
          weight.format == PackedFormat::f8 ? scales[2 * slot.at + of_slot] : float2{1, 1};
      const int count = min(run_tiles, job.column_tiles - run * run_tiles);
      const uint32_t from = sm90::shared_address(rows.stage(stage.at));
      sm90::wait(rows.full + stage.at, stage.parity);
      if (weight.format == PackedFormat::bf16)
        add_run<PackedFormat::bf16, groups>(sum, tiles, count, scale, from, lane);
      else if (weight.format == PackedFormat::f8)
        add_run<PackedFormat::f8, groups>(sum, tiles, count, scale, from, lane);
      else
        add_run<PackedFormat::q4, groups>(sum, tiles, count, scale, from, lane);
      __syncwarp();  // all lanes have read the stage and the slot
      if (lane == 0) sm90::arrive(rows.empty + stage.at);
      stage.advance(row_stages<groups>);
      if ((run + 1) % part_runs == 0 || run + 1 == job.runs) {
#pragma unroll
        for (int j = 0; j < groups; ++j)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            total[j][i] += sum[j][i];
            sum[j][i] = 0;
          }
      }
      if (++of_slot < at_once()) continue;
      of_slot = 0;
      if (const int next = run + 1 + (slots - 1) * at_once(); lane == 0 && next < job.runs)
        fetch(next, slot.at);
      slot.advance(slots);
    }
    store_sums<groups>(weight, total, first_row, job.rows, strip, lane);
  }
};

// Blocks [passes, strips in groups of the block's warps but one, which brings the rows].
template <int groups>
__global__ void __launch_bounds__((most_warps + 1) * warp_lanes, groups == 8 ? 1 : 2)
    many_kernel(const __grid_constant__ PassJob job, const __grid_constant__ CUtensorMap map) {
  extern __shared__ __align__(1024) std::byte memory[];
  const int warps = static_cast<int>(blockDim.x) / warp_lanes - 1;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  std::byte* const ring = memory + row_stages<groups> * stage_bytes<groups>;
  auto* const scales = reinterpret_cast<float2*>(ring + warps * slots * slot_bytes);
  auto* const barriers = reinterpret_cast<sm90::Barrier*>(scales + warps * slots * 2);
  const Rows<groups> rows{job, &map, memory, barriers + warps * slots,
                          barriers + warps * slots + row_stages<groups>};
  const int first_strip = static_cast<int>(blockIdx.y) * warps;
  const int working = min(warps, job.strips - first_strip);
  if (threadIdx.x == 0) {
    for (int i = 0; i < row_stages<groups>; ++i) {
      sm90::set_up(rows.full + i, 1);
      sm90::set_up(rows.empty + i, static_cast<uint32_t>(working));
    }
    sm90::publish_barriers();
  }
  const StreamedWeight& weight = job.product[product_of_strip(job, first_strip + warp)];
  const Strip<groups> mine{job,
                           weight,
                           first_strip + warp - weight.first_strip,
                           lane,
                           ring + warp * slots * slot_bytes,
                           scales + warp * slots * 2,
                           barriers + warp * slots};
  if (warp < working) mine.begin();
  __syncthreads();
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int first_row = static_cast<int>(blockIdx.x) * groups * 8;
  if (warp < working)
    mine.multiply(rows, first_row);
  else if (warp == warps && lane == 0)
    rows.bring(first_row);
}

template <int groups>
void launch(cudaStream_t stream, const PassJob& job, int64_t columns) {
  const int passes = (job.rows + groups * 8 - 1) / (groups * 8);
  // As many warps a block as let every multiprocessor have the same share: one block of up to
  // eight, or several that are alike.
  const int share = (job.strips * passes + multiprocessors() - 1) / multiprocessors();
  const int blocks = (share + most_warps - 1) / most_warps;
  const int warps = std::max(2, (share + blocks - 1) / blocks);
  launch_overlapped(
      "stream_matmul", many_kernel<groups>,
      dim3(static_cast<unsigned>(passes), static_cast<unsigned>((job.strips + warps - 1) / warps)),
      dim3(static_cast<unsigned>((warps + 1) * warp_lanes)),
      static_cast<size_t>(shared_bytes<groups>(warps)), stream, job,
      sm90::map_bf16_rows(job.input.values, job.rows, columns, job.input.stride, groups * 8));
}

}  // namespace

void stream_matmul_many(cudaStream_t stream, const StreamInput& input, int64_t rows,
                        const StreamProduct* products, int count) {
  PassJob job{};
  job.input = input;
  job.rows = static_cast<int>(rows);
  job.products = count;
  job.column_tiles = static_cast<int>(products[0].weight.column_tiles());
  job.runs = (job.column_tiles + run_tiles - 1) / run_tiles;
  job.strips = list_products(products, count, job.product);
  if (wide_pays(job)) return stream_matmul_wide(stream, job, products[0].weight.columns);
  // The widest pass that still gives every multiprocessor four warps: a pass reads all weights,
  // but only a small matrix has too few strips, and the L2 cache holds it.
  const auto enough = [&](int pass) {
    return job.strips * ((job.rows + pass - 1) / pass) >= 4 * multiprocessors();
  };
  if (rows > 32 && enough(64))
    launch<8>(stream, job, products[0].weight.columns);
  else if (rows > 16 && enough(32))
    launch<4>(stream, job, products[0].weight.columns);
  else
    launch<2>(stream, job, products[0].weight.columns);
}

}  // namespace qnext::ops::cuda
