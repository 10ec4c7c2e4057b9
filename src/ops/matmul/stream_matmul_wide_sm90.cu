// Many rows against streamed weights, in passes of 64 rows on wgmma: for a hundred rows and more
// memory is quick, and reading the rows' fragments again for each strip, as mma.sync must, takes
// most of the time. A chain of wgmma of 16 columns has the bits of a chain of mma.m16n8k16 (a test
// compares them), so this kernel keeps the sums that stream_matmul_cuda.h promises.
//
// A block has three warpgroups. Each multiplies a tile of 64 outputs, a strip a warp, with the 64
// rows of the block's pass. The warpgroups share the rows (splits = 1: three tiles a block), or,
// where that leaves multiprocessors idle, the columns (splits = 3: one tile a block, parts of 512
// columns in turn).
//
//   weights  each warp's own ring, fed by a lane of a warp that does nothing else (a lane of its
//            own warp takes 800 clocks for each copy); fragments are unpacked in registers.
//   rows     stages of 128 columns that another such warp brings; wgmma reads them there.
//   sums     a run's and a part's in registers, the total over the parts in shared memory: with
//            it in registers too, three warpgroups would not fit.
//
// [12288 x 2048] in f8 at 256 rows: four passes of mma.sync 68 us, this 48. Two warpgroups with
// passes of 128 rows, which unpack weights half as often: 46, but 31 instead of 26 for
// [2048 x 4096].
#include <algorithm>
#include <type_traits>

#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/launch_cuda.cuh"
#include "ops/matmul/stream_passes.cuh"
#include "ops/sm90/tensor_map.h"
#include "ops/sm90/wgmma.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int warpgroups = 3;
constexpr int group_warps = 4;
constexpr int group_threads = group_warps * warp_lanes;
constexpr int working_warps = warpgroups * group_warps;
constexpr int rows_warp = working_warps;
constexpr int weights_warp = rows_warp + 1;
constexpr int threads = (weights_warp + 1) * warp_lanes;
constexpr int pass_rows = 64;
constexpr int tile_outputs = group_warps * static_cast<int>(tile_rows);
constexpr int sums = pass_rows / 2;  // of a thread
// Of the rows: for all warpgroups, or two for each: who waits for a barrier must have seen all of
// its phases.
constexpr int shared_stages = 4;
constexpr int own_stages = 2;
constexpr int most_stages = warpgroups * own_stages;
constexpr int box_bytes = pass_rows * box_row_bytes;
// Of a row of sums on its way out: lanes 4 g + t write outputs g of rows 2 t to 32 banks.
constexpr int total_stride = tile_outputs + 4;

constexpr int stage_bytes = run_tiles * box_bytes;
constexpr int total_bytes = pass_rows * total_stride * static_cast<int>(sizeof(float));

struct Shared {
  // The rows' stages, and the totals behind them: four and three, or six and one.
  alignas(1024) std::byte
      rows_and_totals[std::max(shared_stages * stage_bytes + warpgroups * total_bytes,
                               most_stages* stage_bytes + total_bytes)];
  alignas(128) std::byte ring[working_warps][slots][slot_bytes];
  float2 scales[working_warps][slots][2];
  sm90::Barrier weights_full[working_warps][slots], weights_empty[working_warps][slots];
  sm90::Barrier rows_full[most_stages], rows_empty[most_stages];
  sm90::Barrier added[warpgroups];  // a warpgroup's part has been added to the total

  __device__ std::byte* rows(int stage) { return rows_and_totals + stage * stage_bytes; }
  // Of a warpgroup, or the only one.
  __device__ float* total(int splits, int group) {
    return reinterpret_cast<float*>(rows_and_totals +
                                    (splits == 1 ? shared_stages : most_stages) * stage_bytes +
                                    (splits == 1 ? group : 0) * total_bytes);
  }
};

static_assert(sizeof(Shared) <= 227 << 10);

__host__ __device__ constexpr int parts_of(int runs) {
  return (runs + part_runs - 1) / part_runs;
}

__host__ __device__ int tiles_of(const StreamedWeight& weight) {
  return (weight.strips + group_warps - 1) / group_warps;
}

// What the warpgroups of a block work on: parts first, first + splits, ... of a tile each.
struct Split {
  int splits;
  int parts;
  int rounds;  // of runs: each a stage for every warpgroup of its own, or one for all

  __device__ Split(const PassJob& job, int splits_)
      : splits(splits_),
        parts(parts_of(job.runs)),
        rounds((parts + splits - 1) / splits * part_runs) {}
  // Where the rows of a round lie.
  __device__ Place stage(int round, int share) const {
    const int count = splits == 1 ? shared_stages : own_stages;
    return {share * own_stages + round % count, static_cast<uint32_t>(round / count % 2)};
  }
  // The run of a round, which may lie beyond the last.
  __device__ int run(int round, int share) const {
    return (round / part_runs * splits + share) * part_runs + round % part_runs;
  }
};

// By one lane: the rows, in the order in which the warpgroups take their stages.
__device__ void bring_rows(const PassJob& job, const CUtensorMap* map, const Split& split,
                           int first_row, Shared& shared) {
  order_before_copies();
  for (int index = 0; index < split.rounds * split.splits; ++index) {
    const int round = index / split.splits, share = index % split.splits;
    const Place place = split.stage(round, share);
    const int run = split.run(round, share);
    sm90::wait(&shared.rows_empty[place.at], place.parity ^ 1);
    if (run < job.runs)
      copy_run(shared.rows(place.at), map, job, run, first_row, pass_rows,
               &shared.rows_full[place.at]);
    else
      sm90::arrive(&shared.rows_full[place.at]);
  }
}

// Where the strip of one warp lies.
struct Source {
  int product;
  int tile;       // of the product's
  int64_t strip;  // of the product's
  int share;

  // tile: of all products.
  __device__ Source(const PassJob& job, int splits, int tile_, int warp)
      : product(0), tile(tile_), share(splits == 1 ? 0 : warp / group_warps) {
    while (product + 1 < job.products && tile >= tiles_of(job.product[product]))
      tile -= tiles_of(job.product[product++]);
    strip = int64_t{tile} * group_warps + warp % group_warps;
  }
  __device__ const StreamedWeight& weight(const PassJob& job) const { return job.product[product]; }
  // Beyond the matrix, in its last tile: the warp multiplies what lies in its ring, for others.
  __device__ bool inside(const PassJob& job) const { return strip < weight(job).strips; }
};

// By one lane: the copies of a warp's weights, in the order in which it reads them.
class WeightFeed {
 public:
  __device__ WeightFeed(const PassJob& job, const Split& split, const Source& source, int warp,
                        Shared& shared)
      : job_(job), split_(split), source_(source), warp_(warp), shared_(shared) {}

  __device__ void begin() {
    for (int slot = 0; slot < slots; ++slot) {
      sm90::set_up(&shared_.weights_full[warp_][slot], 2);
      sm90::set_up(&shared_.weights_empty[warp_][slot], 1);
    }
    sm90::publish_barriers();
    for (int slot = 0; slot < slots && more(); ++slot) next();
  }
  __device__ void run() {
    while (more()) next();
  }

 private:
  __device__ bool more() const { return split_.run(round_, source_.share) < job_.runs; }
  __device__ void next() {
    const StreamedWeight& weight = source_.weight(job_);
    sm90::wait(&shared_.weights_empty[warp_][place_.at], place_.parity ^ 1);
    queue_copy(weight, job_.column_tiles, source_.strip, split_.run(round_, source_.share),
               gridDim.x > 1, shared_.ring[warp_][place_.at], shared_.scales[warp_][place_.at],
               &shared_.weights_full[warp_][place_.at]);
    round_ += copy_runs(weight.format);
    place_.advance(slots);
  }

  const PassJob& job_;
  const Split& split_;
  const Source& source_;
  int warp_;
  Shared& shared_;
  int round_ = 0;
  Place place_;
};

// sum = one tile of weights times its columns of the rows; `more`: after another one. The product
// runs on.
template <PackedFormat format>
__device__ void start_tile(float (&sum)[sums], const LaneTile<format>& tile, uint64_t rows,
                           bool more) {
  Pair a[4][4];
#pragma unroll
  for (int step = 0; step < 4; ++step) tile.fragment(step, a[step]);
  sm90::order_registers();
#pragma unroll
  for (int step = 0; step < 4; ++step)
    sm90::multiply_rows<pass_rows>(sum, a[step], rows + 2 * step, more || step > 0);
  sm90::commit_products();
}

// sum += one run's sum.
template <PackedFormat format>
__device__ void add_run(float (&sum)[sums], const std::byte* weights, int tiles, float2 scale,
                        const std::byte* rows, int lane) {
  float c[sums];
  LaneTile<format> first, second;
  first.load(weights, lane);
  if (tiles > 1) {
    second.load(weights + tile_bytes(format), lane);
    start_tile<format>(c, first, sm90::swizzled_rows(rows), false);
    start_tile<format>(c, second, sm90::swizzled_rows(rows + box_bytes), true);
    sm90::wait_for_products<0>();
  } else {
    start_tile<format>(c, first, sm90::swizzled_rows(rows), false);
    sm90::wait_for_products<0>();
  }
#pragma unroll
  for (int i = 0; i < sums; ++i) {
    if constexpr (format == PackedFormat::f8) c[i] *= i % 4 < 2 ? scale.x : scale.y;
    sum[i] += c[i];
  }
}

// total + sum, where total is a thread's own place in memory.
__device__ void add_total(float (&sum)[sums], const float4* total) {
#pragma unroll
  for (int i = 0; i < sums / 4; ++i) {
    const float4 before = total[i * group_threads];
    sum[4 * i] = before.x + sum[4 * i];
    sum[4 * i + 1] = before.y + sum[4 * i + 1];
    sum[4 * i + 2] = before.z + sum[4 * i + 2];
    sum[4 * i + 3] = before.w + sum[4 * i + 3];
  }
}
__device__ void keep_total(const float (&sum)[sums], float4* total) {
#pragma unroll
  for (int i = 0; i < sums / 4; ++i)
    total[i * group_threads] = {sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]};
}

__device__ void meet_group(int group) {
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(group_threads) : "memory");
}

// Rows of a tile's sums from shared memory to y, two outputs a lane.
template <StreamStore store>
__device__ void store_rows(const StreamedWeight& weight, const float* memory, int64_t first_output,
                           int first_row, int rows) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes % group_warps;
  const int64_t output = first_output + 2 * lane;
  if (output >= weight.rows) return;
  using Value = std::conditional_t<store == StreamStore::bf16, Bf16, float>;
  using Two = std::conditional_t<store == StreamStore::bf16, ushort2, float2>;
  Value* y = static_cast<Value*>(weight.y) + (first_row + warp) * weight.stride + output;
  const bool both = output + 1 < weight.rows;
  const bool together =
      both && weight.stride % 2 == 0 && reinterpret_cast<uintptr_t>(y) % sizeof(Two) == 0;
#pragma unroll 8
  for (int row = warp; row < rows; row += group_warps, y += group_warps * weight.stride) {
    float2 sum = *reinterpret_cast<const float2*>(memory + row * total_stride + 2 * lane);
    Two before{};
    if constexpr (store == StreamStore::add_f32) {
      if (together)
        before = *reinterpret_cast<const float2*>(y);
      else
        before = {y[0], both ? y[1] : 0.0f};
      sum = {before.x + sum.x, before.y + sum.y};
    }
    Two value;
    if constexpr (store == StreamStore::bf16)
      value = {__bfloat16_as_ushort(__float2bfloat16_rn(sum.x)),
               __bfloat16_as_ushort(__float2bfloat16_rn(sum.y))};
    else
      value = sum;
    if (together) {
      *reinterpret_cast<Two*>(y) = value;
    } else {
      y[0] = value.x;
      if (both) y[1] = value.y;
    }
  }
}

// Through shared memory, so that a warp writes outputs side by side.
__device__ void store_tile(const float (&sum)[sums], const PassJob& job,
                           const StreamedWeight& weight, int64_t first_output, int first_row,
                           float* memory, int group) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes % group_warps;
  meet_group(group);  // the totals have been read
#pragma unroll
  for (int i = 0; i < sums; ++i)
    memory[(i / 4 * 8 + lane % 4 * 2 + i % 2) * total_stride + warp * static_cast<int>(tile_rows) +
           lane / 4 + i % 4 / 2 * 8] = sum[i];
  meet_group(group);
  const int rows = min(pass_rows, job.rows - first_row);
  if (weight.store == StreamStore::bf16)
    store_rows<StreamStore::bf16>(weight, memory, first_output, first_row, rows);
  else if (weight.store == StreamStore::f32)
    store_rows<StreamStore::f32>(weight, memory, first_output, first_row, rows);
  else
    store_rows<StreamStore::add_f32>(weight, memory, first_output, first_row, rows);
}

// A warpgroup's share of its tile.
__device__ void multiply(const PassJob& job, const Split& split, const Source& source,
                         int first_row, int group, Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const StreamedWeight& weight = source.weight(job);
  const bool inside = source.inside(job);
  float* const totals = shared.total(split.splits, group);
  auto* const total =
      reinterpret_cast<float4*>(totals) + static_cast<int>(threadIdx.x) % group_threads;
  const PackedFormat format = weight.format;
  const int at_once = copy_runs(format);
  const int run_bytes = run_tiles * static_cast<int>(tile_bytes(format));
  float sum[sums];
#pragma unroll
  for (int i = 0; i < sums; ++i) sum[i] = 0;
  Place slot;
  int of_slot = 0;  // the run of the slot that is next
  for (int round = 0; round < split.rounds; ++round) {
    const int run = split.run(round, source.share);
    const Place stage = split.stage(round, source.share);
    if (run < job.runs) {
      if (of_slot == 0 && inside) sm90::wait(&shared.weights_full[warp][slot.at], slot.parity);
      const std::byte* tiles = shared.ring[warp][slot.at] + of_slot * run_bytes;
      const float2 scale = shared.scales[warp][slot.at][of_slot];
      const int count = min(run_tiles, job.column_tiles - run * run_tiles);
      sm90::wait(&shared.rows_full[stage.at], stage.parity);
      if (format == PackedFormat::bf16)
        add_run<PackedFormat::bf16>(sum, tiles, count, scale, shared.rows(stage.at), lane);
      else if (format == PackedFormat::f8)
        add_run<PackedFormat::f8>(sum, tiles, count, scale, shared.rows(stage.at), lane);
      else
        add_run<PackedFormat::q4>(sum, tiles, count, scale, shared.rows(stage.at), lane);
    } else {
      sm90::wait(&shared.rows_full[stage.at], stage.parity);
    }
    __syncwarp();  // all lanes have read the slot
    if (lane == 0) sm90::arrive(&shared.rows_empty[stage.at]);
    if (++of_slot == at_once) {
      of_slot = 0;
      if (lane == 0 && inside) sm90::arrive(&shared.weights_empty[warp][slot.at]);
      slot.advance(slots);
    }
    const int part = run / part_runs;
    if ((round + 1) % part_runs != 0 || part >= split.parts) continue;
    if (part > 0) {
      if (split.splits > 1)
        sm90::wait(&shared.added[(part - 1) % split.splits],
                   static_cast<uint32_t>((part - 1) / split.splits % 2));
      add_total(sum, total);
    }
    if (part + 1 == split.parts) {
      store_tile(sum, job, weight, int64_t{source.tile} * tile_outputs, first_row, totals, group);
      return;
    }
    keep_total(sum, total);
    if (split.splits > 1) {
      __syncwarp();
      if (lane == 0) sm90::arrive(&shared.added[source.share]);
    }
#pragma unroll
    for (int i = 0; i < sums; ++i) sum[i] = 0;
  }
}

// Blocks [passes, tiles in groups of 3 / splits].
__global__ void __launch_bounds__(threads, 1)
    wide_kernel(const __grid_constant__ PassJob job, const __grid_constant__ CUtensorMap map,
                int tiles, int splits) {
  extern __shared__ __align__(1024) std::byte memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const Split split(job, splits);
  const int first_tile = static_cast<int>(blockIdx.y) * (splits == 1 ? warpgroups : 1);
  // Warpgroups that have a tile, and those that share a stage.
  const int groups = splits == 1 ? min(warpgroups, tiles - first_tile) : warpgroups;
  const int sharing = splits == 1 ? groups : 1;
  // The warp whose weights this warp multiplies or this lane brings.
  const int of_warp =
      warp == weights_warp ? min(lane, working_warps - 1) : min(warp, working_warps - 1);
  const int group = of_warp / group_warps;
  const Source source(job, splits, first_tile + (splits == 1 ? group : 0), of_warp);
  WeightFeed feed(job, split, source, of_warp, shared);
  const bool feeds = warp == weights_warp && lane < groups * group_warps && source.inside(job);
  if (feeds) feed.begin();
  if (warp == rows_warp && lane == 0) {
    for (int i = 0; i < most_stages; ++i) {
      sm90::set_up(&shared.rows_full[i], 1);
      sm90::set_up(&shared.rows_empty[i], static_cast<uint32_t>(group_warps * sharing));
    }
    for (sm90::Barrier& barrier : shared.added) sm90::set_up(&barrier, group_warps);
    sm90::publish_barriers();
  }
  __syncthreads();
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int first_row = static_cast<int>(blockIdx.x) * pass_rows;
  if (warp < groups * group_warps)
    multiply(job, split, source, first_row, group, shared);
  else if (feeds)
    feed.run();
  else if (warp == rows_warp && lane == 0)
    bring_rows(job, &map, split, first_row, shared);
}

int tiles_of(const PassJob& job) {
  int tiles = 0;
  for (int i = 0; i < job.products; ++i) tiles += tiles_of(job.product[i]);
  return tiles;
}
int passes_of(const PassJob& job) {
  return (job.rows + pass_rows - 1) / pass_rows;
}

}  // namespace

// With fewer tiles the narrow passes of the other kernel use more multiprocessors.
bool wide_pays(const PassJob& job) {
  return job.rows > pass_rows && tiles_of(job) * passes_of(job) >= multiprocessors() / 3;
}

void stream_matmul_wide(cudaStream_t stream, const PassJob& job, int64_t columns) {
  const int tiles = tiles_of(job), passes = passes_of(job);
  // The way with fewer rounds of runs; a round of blocks costs about two more.
  const auto rounds = [&](int splits) {
    const int blocks = (tiles * splits + warpgroups - 1) / warpgroups * passes;
    return (blocks + multiprocessors() - 1) / multiprocessors() *
           ((parts_of(job.runs) + splits - 1) / splits * part_runs + 2);
  };
  const int splits = rounds(warpgroups) < rounds(1) ? warpgroups : 1;
  launch_overlapped(
      "stream_matmul", wide_kernel,
      dim3(static_cast<unsigned>(passes),
           static_cast<unsigned>((tiles * splits + warpgroups - 1) / warpgroups)),
      dim3(threads), sizeof(Shared), stream, job,
      sm90::map_bf16_rows(job.input.values, job.rows, columns, job.input.stride, pass_rows), tiles,
      splits);
}

}  // namespace qnext::ops::cuda
