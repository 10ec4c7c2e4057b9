// Up to eight rows against streamed weights, where stream_row_sm90.cu does not take them: five and
// more, or a long matrix. What bounds it is memory: 4.45 TB/s is 19 bytes a clock for each SM, with
// nearly a microsecond of latency in front of every byte, and a whole projection is 2 to 6
// microseconds. So the ladder was:
//
//   1. Copies by the copy engine (cp.async.bulk) into rings in shared memory: each warp owns a ring
//      and refills it itself; up to about 100 KB an SM, two to three times what the latency asks to
//      have in flight.
//   2. The rings are filled before the kernel waits for the kernels before it: the weights depend
//      on nothing. Two such kernels fit on an SM together (half its shared memory and registers
//      each), so memory does not fall idle while one ends, the next one starts and stages its rows.
//   3. Tensor cores, though 7 of 8 columns are empty at one row: unpacking a weight costs the same
//      for 8 rows, and fp32 FMAs would be the limit.
//   4. Rows in shared memory in the order of the B fragments: two 16-byte loads a tile of 64
//      columns instead of eight of 4 bytes.
//   5. A warp keeps to its strip of 16 outputs, or a share of it, from end to end. Where all warps
//      shared each strip and met after it (first at a barrier, then with a warp of their own for
//      the adding), a strip of 32 KB took 1.4 to 3 us, of the 1 us that memory needs for it, most
//      of that in latencies between the warps.
//
// So that an SM has up to a dozen warps also where it has one strip only, a strip may be split
// among 2, 4 or 8 warps, each taking whole parts of 512 columns: it sums them apart and adds them
// to the total that it gets from the warp before it.
#include <algorithm>

#include "base/cuda_error.h"
#include "ops/launch_cuda.cuh"
#include "ops/matmul/stream_feed.cuh"
#include "ops/matmul/stream_rows.cuh"
#include "ops/matmul/stream_tile.cuh"

namespace qnext::ops::cuda {

using namespace few_rows;

namespace {

constexpr int most_rows = 8;            // n of mma.m16n8k16
constexpr int most_warps = 12;          // 80 registers each, with two blocks an SM
constexpr int least_warps = norm_runs;  // to stage the rows
constexpr int most_splits = 8;
constexpr int most_held = 2;  // parts of a warp that wait for the total before them
constexpr int least_slots = 2, most_slots = 8;
// Two blocks on an SM of 228 KB, a KB each being the system's.
constexpr int shared_budget = (228 << 10) / 2 - 1024;
constexpr int shared_limit = 227 << 10;
constexpr int long_strips = 4 * most_warps;  // of an SM

// sum += the runs of one copy of `tiles` tiles; `run` is the first of them within its part.
template <PackedFormat format>
__device__ inline void add_copy(float (&sum)[4], const std::byte* data, int tiles,
                                const std::byte* x, int run, float scales, int lane) {
  constexpr int runs = copy_tiles(format) / run_tiles;
  constexpr int bytes = static_cast<int>(tile_bytes(format));
  float c[runs][4] = {};
  if (tiles == runs * run_tiles) {  // independent chains
#pragma unroll
    for (int j = 0; j < run_tiles; ++j)
#pragma unroll
      for (int i = 0; i < runs; ++i)
        add_tile<format>(c[i], data + (i * run_tiles + j) * bytes, x + (i * run_tiles + j) * 128,
                         lane);
  } else {
#pragma unroll
    for (int i = 0; i < runs; ++i)
      for (int tile = i * run_tiles; tile < min(tiles, (i + 1) * run_tiles); ++tile)
        add_tile<format>(c[i], data + tile * bytes, x + tile * 128, lane);
  }
#pragma unroll
  for (int i = 0; i < runs; ++i) {
    if (i * run_tiles >= tiles) continue;
    if constexpr (format == PackedFormat::f8) {
      const float upper = __shfl_sync(whole_warp, scales, 2 * (run + i));
      const float lower = __shfl_sync(whole_warp, scales, 2 * (run + i) + 1);
      c[i][0] *= upper;
      c[i][1] *= upper;
      c[i][2] *= lower;
      c[i][3] *= lower;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[j] += c[i][j];
  }
}

// A fragment of sums: value i is row lane % 4 * 2 + i % 2, output lane / 4 + i / 2 * 8 of a strip.
struct Fragment {
  float value[4] = {};

  __device__ void operator+=(const Fragment& other) {
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] += other.value[i];
  }
  // function(i, row, output) of what lies inside.
  template <typename Function>
  __device__ static void each(const Job& job, const Strips& strips, int lane, Function function) {
    const int row = lane % 4 * 2, output = strips.own(job) * static_cast<int>(tile_rows) + lane / 4;
    const int outputs = static_cast<int>(strips.weight(job).rows);
    if (row >= job.rows || output >= outputs) return;
    const bool second = row + 1 < job.rows, lower = output + 8 < outputs;
    function(0, row, output);
    if (lower) function(2, row, output + 8);
    if (second) function(1, row + 1, output);
    if (second && lower) function(3, row + 1, output + 8);
  }
};

// The formats that a kernel knows: one of them, or all.
enum class Formats { bf16, f8, q4, all };
template <Formats formats>
__device__ inline PackedFormat format_of(const StreamedWeight& weight) {
  if constexpr (formats == Formats::all)
    return weight.format;
  else
    return formats == Formats::bf16 ? PackedFormat::bf16
           : formats == Formats::f8 ? PackedFormat::f8
                                    : PackedFormat::q4;
}

// One warp's work.
template <Formats formats>
struct Worker {
  const Job& job;
  const Share& share;
  int warp, lane;
  const std::byte* x;  // this lane's row and pair

  // The total of the parts before this warp's.
  __device__ Fragment take(const Place& turn) const {
    sm90::wait(shared_at<sm90::Barrier>(job.at.ready) + warp, turn.parity);
    const float4 v = shared_at<float4>(job.at.handed)[warp * warp_lanes + lane];
    __syncwarp();
    if (lane == 0) sm90::arrive(shared_at<sm90::Barrier>(job.at.taken) + warp);
    return {{v.x, v.y, v.z, v.w}};
  }
  __device__ void hand_on(const Fragment& total, const Place& turn) const {
    const auto& v = total.value;
    sm90::wait(shared_at<sm90::Barrier>(job.at.taken) + warp + 1, turn.parity ^ 1);
    shared_at<float4>(job.at.handed)[(warp + 1) * warp_lanes + lane] = {v[0], v[1], v[2], v[3]};
    __syncwarp();
    if (lane == 0) sm90::arrive(shared_at<sm90::Barrier>(job.at.ready) + warp + 1);
  }

  __device__ float next_scales(Scales& scales) const {
    if constexpr (formats == Formats::bf16 || formats == Formats::q4)
      return 1;
    else
      return scales.next(job, share, lane);
  }

  __device__ void store(const Strips& strips, const Fragment& total, const Fragment& before) const {
    const StreamedWeight& weight = strips.weight(job);
    if (weight.store == StreamStore::bf16)
      Fragment::each(job, strips, lane,
                     [&, y = static_cast<Bf16*>(weight.y)](int i, int row, int output) {
                       y[row * weight.stride + output] =
                           __bfloat16_as_ushort(__float2bfloat16_rn(total.value[i]));
                     });
    else
      Fragment::each(job, strips, lane,
                     [&, y = static_cast<float*>(weight.y)](int i, int row, int output) {
                       const float sum = total.value[i];
                       y[row * weight.stride + output] =
                           weight.store == StreamStore::f32 ? sum : before.value[i] + sum;
                     });
  }

  // The sum of one part; `advance` gives the slot back that was read.
  template <typename Advance>
  __device__ Fragment sum_part(PackedFormat format, int part, float scales, Place& slot,
                               Advance advance) const {
    Fragment sum;
    const int end = min((part + 1) * part_tiles, job.column_tiles);
    const int step = copy_tiles(format);
    for (int tile = part * part_tiles; tile < end; tile += step) {
      const int index = warp * job.slots + slot.at;
      sm90::wait(shared_at<sm90::Barrier>(job.at.full) + index, slot.parity);
      const std::byte* data = shared_at<std::byte>(index * job.slot_bytes);
      const int tiles = min(step, end - tile);
      const int run = tile % part_tiles / run_tiles;
      if (format == PackedFormat::bf16)
        add_copy<PackedFormat::bf16>(sum.value, data, tiles, x + tile * 128, run, scales, lane);
      else if (format == PackedFormat::f8)
        add_copy<PackedFormat::f8>(sum.value, data, tiles, x + tile * 128, run, scales, lane);
      else
        add_copy<PackedFormat::q4>(sum.value, data, tiles, x + tile * 128, run, scales, lane);
      advance();
    }
    return sum;
  }

  __device__ void run(Strips strips, Feed& feed, Scales& scales) const {
    Place slot, turn;
    const bool last = share.split == job.splits - 1;
    const auto advance = [&] {
      const int index = warp * job.slots + slot.at;
      __syncwarp();  // all lanes have read the slot
      if (lane == 0)
        feed.next(job, share, shared_at<std::byte>(index * job.slot_bytes),
                  shared_at<sm90::Barrier>(job.at.full) + index);
      slot.advance(job.slots);
    };
    for (; !strips.done(job); strips.next(job)) {
      Fragment before, total, held[most_held];
      const StreamedWeight& weight = strips.weight(job);
      if (last && weight.store == StreamStore::add_f32)
        Fragment::each(job, strips, lane,
                       [&, add = static_cast<const float*>(weight.y)](int i, int row, int output) {
                         before.value[i] = add[row * weight.stride + output];
                       });
      const PackedFormat format = format_of<formats>(weight);
      for (int part = share.first; part < share.end; ++part) {
        const Fragment sum = sum_part(format, part, next_scales(scales), slot, advance);
        if (share.split == 0) {
          total += sum;
        } else {
#pragma unroll
          for (int i = 0; i < most_held; ++i)
            if (i == part - share.first) held[i] = sum;
        }
      }
      if (share.split > 0) {
        total = take(turn);
#pragma unroll
        for (int i = 0; i < most_held; ++i)
          if (i < share.end - share.first) total += held[i];
      }
      if (!last)
        hand_on(total, turn);
      else
        store(strips, total, before);
      turn.advance(1);
    }
  }
};

template <Formats formats>
__global__ void __launch_bounds__(most_warps* warp_lanes, 2)
    stream_kernel(const __grid_constant__ Job job) {
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int group = warp / job.splits;
  const bool works = group < job.groups;
  const Share share(job, warp);
  Feed feed(job, group, share);
  Scales scales(job, group, share);
  if (works) {
    auto* full = shared_at<sm90::Barrier>(job.at.full) + warp * job.slots;
    if (lane == 0) {
#pragma unroll 1
      for (int slot = 0; slot < job.slots; ++slot) sm90::set_up(full + slot, 1);
      sm90::set_up(shared_at<sm90::Barrier>(job.at.ready) + warp, 1);
      sm90::set_up(shared_at<sm90::Barrier>(job.at.taken) + warp, 1);
      sm90::publish_barriers();
#pragma unroll 1
      for (int slot = 0; slot < job.slots; ++slot)
        feed.next(job, share, shared_at<std::byte>((warp * job.slots + slot) * job.slot_bytes),
                  full + slot);
    }
    scales.load(job, lane);
    // Parameters lie in constant memory too, and the first look at a line of it takes as long as
    // one at device memory: now is the time for what the end needs.
    const StreamedWeight& weight = Strips(job, group).weight(job);
    asm volatile("" ::"l"(weight.y), "l"(weight.stride), "l"(weight.rows),
                 "r"(static_cast<int>(weight.store)));
  }
  auto* x = shared_at<std::byte>(job.at.x);
  const StagedRows staged{
      x, shared_at<float>(job.at.norm), job.x_stride, job.rows, job.column_tiles, job.columns};
  if (job.input.residual) prefetch_norm_weight(job.input, job.columns);
  let_next_kernel_start();
  wait_for_earlier_kernels();
  if (job.input.residual)
    stage_normed(job.input, staged, job.input.normed && blockIdx.x == 0);
  else
    stage_values(job.input, staged);
  __syncthreads();
  // Lanes without a row of their own read the last one, and their sums are dropped.
  const std::byte* mine = x + min(lane / 4, job.rows - 1) * job.x_stride + lane % 4 * 32;
  if (works) Worker<formats>{job, share, warp, lane, mine}.run(Strips(job, group), feed, scales);
}

// --- The launch --------------------------------------------------------------------------------

Layout layout_of(const Job& job, int warps, int slots) {
  Layout at{};
  int end = warps * slots * job.slot_bytes;
  const auto take = [&end](int count, int size) {
    const int begin = end;
    end += count * size;
    return begin;
  };
  at.x = take(job.rows, job.x_stride);
  at.handed = take(warps * warp_lanes, sizeof(float4));
  at.norm = take(job.input.residual ? norm_floats : 0, sizeof(float));
  at.full = take(warps * slots, sizeof(sm90::Barrier));
  at.ready = take(warps, sizeof(sm90::Barrier));
  at.taken = take(warps, sizeof(sm90::Barrier));
  at.bytes = end;
  return at;
}

// Chooses how strips are split and how many warps a block has: the fewest parts one after the other
// that `bytes` of shared memory allow, then the fewest warps. False if nothing fits.
bool plan(Job& job, int bytes) {
  const int share = (job.strips + job.blocks - 1) / job.blocks;
  int best = 0;
  for (int splits = 1; splits <= std::min(most_splits, job.parts); splits *= 2) {
    const int parts = (job.parts + splits - 1) / splits;
    if (splits > 1 && parts > most_held) continue;
    for (int groups = 1; groups <= std::min(share, most_warps / splits); ++groups) {
      if (layout_of(job, groups * splits, least_slots).bytes > bytes) break;
      const int rounds = (share + groups - 1) / groups * parts;
      if (best > 0 &&
          std::pair(rounds, groups * splits) >= std::pair(best, job.groups * job.splits))
        continue;
      best = rounds;
      job.groups = groups;
      job.splits = splits;
    }
  }
  if (best == 0) return false;
  const int warps = job.groups * job.splits;
  job.slots = most_slots;
  while (job.slots > least_slots && layout_of(job, warps, job.slots).bytes > bytes) --job.slots;
  job.at = layout_of(job, warps, job.slots);
  return true;
}

template <Formats formats>
void launch(cudaStream_t stream, const Job& job) {
  // Two blocks on an SM need all of its shared memory, and kernels that want other shares of it do
  // not overlap.
  keep_all_shared(stream_kernel<formats>);
  const int warps = std::max(least_warps, job.groups * job.splits);
  const auto bytes = static_cast<size_t>(job.at.bytes);
  // With a strip less than a block for some, too: two of them on one would make all wait.
  const bool one_each = job.blocks == multiprocessors() && 2 * job.strips >= job.blocks;
  launch_overlapped("stream_matmul", stream_kernel<formats>,
                    dim3(static_cast<unsigned>(std::min(job.strips, job.blocks))),
                    dim3(static_cast<unsigned>(warps * warp_lanes)),
                    one_each ? alone_on_multiprocessor(bytes) : bytes, stream, job);
}

}  // namespace

int list_products(const StreamProduct* products, int count,
                  StreamedWeight (&list)[most_stream_products]) {
  int strips = 0;
  for (int i = 0; i < count; ++i) {
    const PackedMatrix& weight = products[i].weight;
    list[i] = {weight.tiles,     weight.scales,
               products[i].y,    products[i].stride,
               weight.rows,      static_cast<int>(weight.row_tiles()),
               strips,           weight.format,
               products[i].store};
    strips += list[i].strips;
  }
  return strips;
}

void stream_matmul(cudaStream_t stream, const StreamInput& input, int64_t rows,
                   const StreamProduct* products, int count) {
  if (rows == 0 || count == 0) return;
  if (count > most_stream_products || rows > most_stream_rows ||
      (input.residual && rows > most_normed_stream_rows))
    fail_cuda("stream_matmul: too many rows or products");
  if (rows > most_rows) return stream_matmul_many(stream, input, rows, products, count);
  if (stream_matmul_strips(stream, input, rows, products, count) ||
      stream_matmul_row(stream, input, rows, products, count))
    return;
  Job job{};
  job.input = input;
  job.rows = static_cast<int>(rows);
  job.columns = products[0].weight.columns;
  job.products = count;
  job.strips = list_products(products, count, job.product);
  job.column_tiles = static_cast<int>(products[0].weight.column_tiles());
  job.runs = (job.column_tiles + run_tiles - 1) / run_tiles;
  job.parts = (job.runs + part_runs - 1) / part_runs;
  job.x_stride = job.column_tiles * 128 + 16;  // + 16: rows n and n + 1 share no banks
  for (int i = 0; i < count; ++i) {
    const PackedFormat format = products[i].weight.format;
    job.slot_bytes =
        std::max(job.slot_bytes, copy_tiles(format) * static_cast<int>(tile_bytes(format)));
  }
  // A long matrix leaves the next kernel little to overlap with, and 100 KB of copies an SM are too
  // few while their warps multiply: it takes both blocks of each SM itself.
  job.blocks = multiprocessors();
  const bool is_long = job.strips >= long_strips * job.blocks;
  if (is_long) job.blocks *= 2;
  if (!plan(job, shared_budget) && !plan(job, shared_limit))
    fail_cuda("stream_matmul: too many columns");
  // A layer's products share one kernel, so that its code stays in the caches of instructions; a
  // long matrix comes alone, and its own kernel is shorter.
  const auto all = [&](PackedFormat format) {
    return is_long && std::all_of(products, products + count, [&](const StreamProduct& p) {
             return p.weight.format == format;
           });
  };
  if (all(PackedFormat::bf16))
    launch<Formats::bf16>(stream, job);
  else if (all(PackedFormat::f8))
    launch<Formats::f8>(stream, job);
  else if (all(PackedFormat::q4))
    launch<Formats::q4>(stream, job);
  else
    launch<Formats::all>(stream, job);
}

}  // namespace qnext::ops::cuda
