// One row, or up to four, against streamed weights, where every block has few strips: what decoding
// at batch 1 and verifying drafts do between the layers' other stages. There the time is that of
// instructions and of latencies one behind the other, not the memory's. So:
//
//   1. Little code: what the kernels of a layer run in all has to stay in the SMs' caches of
//      instructions from one layer to the next, some 100 KB (docs/performance.md).
//   2. None of it between two products: what fills a slot of the ring is listed beforehand, a copy
//      of up to 32 KB each, and scales come with their weights.
//   3. A warp takes a run of 128 columns of each strip, their sums meet in shared memory, and there
//      is one barrier at the very end, behind which a thread an output adds the runs in the order
//      of stream_matmul_cuda.h.
//
// An mma has eight columns: one row fills them all, four rows four of them, so several rows cost no
// further products. Their kernels have shared memory for two strips of 32 KB in place of three.
//
// Tried: what does not fit into the ring on its way to L2 meanwhile, by one thread (3 us for 3
// copies and 3 prefetches). Two runs of a warp side by side do not fit its registers. The next
// piece's weights in registers during the products, or the first one's before the wait, so that its
// slot is filled again earlier. Going through the code once before the wait ("rehearsal"): it
// disturbs the kernel ahead and pushes other code out of the caches.
#include <algorithm>

#include "base/cuda_error.h"
#include "ops/launch_cuda.cuh"
#include "ops/matmul/stream_row_norm.cuh"
#include "ops/matmul/stream_row_products.cuh"

namespace qnext::ops::cuda {

using namespace few_rows;
using namespace row_products;

namespace {

constexpr int summed_runs = 4 * part_runs;  // at a time, by a thread behind the last product
// Two blocks on an SM of 228 KB, a KB each being the system's.
constexpr int shared_budget = (228 << 10) / 2 - 1024;

// A run's sums in shared memory, for every output of a strip and every row. Those of four rows lie
// crosswise from output 8 on, so that neither a warp's stores nor its loads share banks.
template <int rows>
struct RunSums {
  static constexpr int size = rows * strip_rows;

  // Where a lane's c[0] goes.
  static __device__ int first_place(int lane) {
    return rows == 1 ? lane / 4 : lane / 4 * rows + lane % 4 * 2;
  }
  static __device__ void store(float* to, const float (&c)[4], int lane) {
    if constexpr (rows == 1) {
      if (lane % 4 != 0) return;
      to[0] = c[0];
      to[8] = c[2];
    } else {
      static_assert(rows == 4);
      if (lane % 4 >= 2) return;
      *reinterpret_cast<float2*>(to) = {c[0], c[1]};
      *reinterpret_cast<float2*>(to + 8 * rows + 2 - lane % 4 * 4) = {c[2], c[3]};
    }
  }
  static __device__ int place(int output, int row) {
    return rows == 1 ? output : output * rows + (row ^ output / 8 * 2);
  }
};

// The warp's run of a piece that may be of either format and shorter than others. x: the lane's
// row.
template <PackedFormat main, int rows>
__device__ inline void add_piece(const RowJob& job, const Piece& piece, int slot,
                                 const std::byte* x, int warps) {
  using Sums = RunSums<rows>;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  // warps: a power of two, no fewer than a piece's runs.
  const int first = piece.first, run = first + ((warp - first) & (warps - 1));
  if (run >= piece.end) return;
  const std::byte* const data = shared_at<std::byte>(slot * job.slot_bytes);
  const std::byte* const row = x + run * run_tiles * 128;
  const int tiles = job.column_tiles - run * run_tiles;
  float c[4] = {};
  if (main != PackedFormat::bf16 && !piece.is_bf16)
    add_run<main>(c, data + (run - first) * run_bytes(main), row, tiles, lane);
  else
    add_run<PackedFormat::bf16>(c, data + (run - first) * run_bytes(PackedFormat::bf16), row, tiles,
                                lane);
  if (main == PackedFormat::f8 && !piece.is_bf16) {
    const float2 scale = shared_at<float2>(job.scales)[slot * most_piece_runs + run - first];
#pragma unroll
    for (int j = 0; j < 4; ++j) c[j] *= j < 2 ? scale.x : scale.y;
  }
  float* const sums = shared_at<float>(job.sums);
  Sums::store(sums + (piece.order * job.runs + run) * Sums::size + Sums::first_place(lane), c,
              lane);
}

// An output's runs in the order of stream_matmul_cuda.h. All loads of some parts come first: one
// latency for all.
__device__ inline float add_runs(const float* from, int runs, int stride) {
  float total = 0;
#pragma unroll 1
  for (int first = 0; first < runs; first += summed_runs) {
    float value[summed_runs];
#pragma unroll
    for (int j = 0; j < summed_runs; ++j)
      value[j] = first + j < runs ? from[(first + j) * stride] : 0.0f;
#pragma unroll
    for (int part = 0; part < summed_runs; part += part_runs) {
      float sum = 0;
#pragma unroll
      for (int j = 0; j < part_runs; ++j) sum += value[part + j];
      if (first + part < runs) total += sum;
    }
  }
  return total;
}

// main: the format of all weights, apart from some in bf16. rows: 1, or up to so many.
template <PackedFormat main, int rows>
__device__ inline void multiply(const RowJob& job) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int warp = thread / warp_lanes, lane = thread % warp_lanes;
  if (rows > 1 && warp >= most_warps) return;  // it is there for its registers: see launch()
  const int warps = rows > 1 ? most_warps : static_cast<int>(blockDim.x) / warp_lanes;
  auto* const full = shared_at<sm90::Barrier>(job.full);
  auto* const empty = shared_at<sm90::Barrier>(job.empty);
  auto* const pieces = shared_at<Piece>(job.pieces);
  auto* const counts = shared_at<PieceCounts>(job.counts);
  // The next kernel's blocks begin as soon as earlier ones leave them room, which is before this
  // one's copies have come. Not so the router, whose normed row is kept: that was slower.
  if (!job.input.normed) let_next_kernel_start();
  if (warp == 0) {
    const PieceCounts found = list_pieces(job, pieces, lane);
    if (lane == 0) *counts = found;
  } else if (thread == warp_lanes) {
#pragma unroll 1
    for (int slot = 0; slot < job.slots; ++slot) {
      sm90::set_up(full + slot, 1);
      sm90::set_up(empty + slot, static_cast<uint32_t>(warps));
    }
    sm90::publish_barriers();
  }
  __syncthreads();
  const int all = counts->all, all_alike = counts->alike;
  // A warp a copy: to queue one takes a thread half a microsecond.
  if (lane == 0 && warp < min(all, job.slots)) issue(job, pieces[warp], warp);
  auto* const x = shared_at<std::byte>(job.x);
  // Of several rows: where sums come later.
  auto* const norm_weight = shared_at<float4>(job.sums);
  if (job.input.residual) {
    if constexpr (rows == 1)
      prefetch_norm_weight(job.input, job.columns);
    else
      norm_weight[thread] = reinterpret_cast<const float4*>(job.input.norm_weight)[thread];
  }
  const StagedRows staged{x,
                          shared_at<float>(job.norm),
                          job.x_stride,
                          rows == 1 ? 1 : job.rows,
                          job.column_tiles,
                          job.columns};
  // Behind the last product a thread makes an output of a row.
  using Sums = RunSums<rows>;
  const int mine = thread / Sums::size;
  const int row_of_output = rows == 1 ? 0 : thread % Sums::size / strip_rows;
  const int output_place = static_cast<int>(blockIdx.x) + mine * static_cast<int>(gridDim.x);
  const int strip_of_output = mine < most_strips ? strip_at(job, output_place) : no_strip;
  const bool stores = strip_of_output != no_strip && (rows == 1 || row_of_output < job.rows);
  const int output_strip = stores ? strip_of_output : 0;
  const StreamedWeight& out = weight_of(job, output_strip);
  const int output = (output_strip - out.first_strip) * strip_rows + thread % strip_rows;
  const bool inside = stores && output < out.rows;
  const int64_t to_y = row_of_output * out.stride + output;
  auto* const sums = shared_at<float>(job.sums);

  // Gives a slot back; one warp fills it again.
  const auto release = [&](int i, const Place& of) {
    if (i + job.slots >= all) return;
    __syncwarp();
    if (lane != 0) return;
    sm90::arrive(empty + of.at);
    if (warp != (i & (warps - 1))) return;
    sm90::wait(empty + of.at, of.parity);
    issue(job, pieces[i + job.slots], of.at);
  };

  if (job.input.normed) let_next_kernel_start();
  wait_for_earlier_kernels();
  HalfCheck check;
  // One row lies there in f16 too; of several, each warp makes f16 of what it holds.
  const auto put_halves = [&](int offset, Pair pair) {
    if constexpr (main == PackedFormat::f8) {
      if constexpr (rows == 1) *shared_at<Pair>(job.half_x + offset) = scaled_halves(pair);
      check.add(pair);
    }
  };
  const bool write = job.input.normed && blockIdx.x == 0;
  if (!job.input.residual) {
    stage_chunks<rows>(job.input, staged, put_halves);
  } else if constexpr (rows == 1) {
    RowNorm norm;
    norm.fetch(job.input, job.columns);
    norm.stage(job.input, staged, write, put_halves);
  } else {
    RowsNorm::stage(
        job.input, staged, write, [&](int i) { return norm_weight[RowsNorm::at(i)]; },
        [&](Pair pair) { put_halves(0, pair); });
  }
  float before = 0;  // comes beside the products
  if (inside && out.store == StreamStore::add_f32)
    before = __ldcg(static_cast<const float*>(out.y) + to_y);
  // Where f16 does not hold the row, its pieces are not alike.
  int alike = all_alike;
  if constexpr (main == PackedFormat::f8) {
    if (__syncthreads_or(check.failed()) != 0) alike = 0;
  } else {
    __syncthreads();
  }

  Place slot;
  int i = 0;
  // A lane's row: lanes without one read the last, and their sums are dropped.
  const std::byte* const x_of_lane =
      x + (rows == 1 ? 0 : min(lane / 4, job.rows - 1) * job.x_stride) + lane % 4 * 32;
  if constexpr (main != PackedFormat::bf16) {
    const std::byte* const row =
        (main == PackedFormat::f8 && rows == 1 ? shared_at<std::byte>(job.half_x) + lane % 4 * 32
                                               : x_of_lane) +
        warp * run_tiles * 128;
    const auto load = [&](RunFragments& b, int at) {
      b.load(row + at);
      if constexpr (main == PackedFormat::f8 && rows > 1) b.make_halves();
    };
    const std::byte* const own = shared_at<std::byte>(warp * run_bytes(main));
    const auto* const scales = shared_at<float2>(job.scales) + warp;
    float* to = sums + warp * Sums::size + Sums::first_place(lane);
    const int row_bytes = job.column_tiles * 128;
    const bool stays = job.runs == most_piece_runs;  // the warp's part of the row
    RunFragments b;
#pragma unroll 1
    for (int at = 0; i < alike; ++i) {
      if (!stays || i == 0) {
        load(b, at);
        at += most_piece_runs * run_tiles * 128;
        if (at == row_bytes) at = 0;
      }
      sm90::wait(full + slot.at, slot.parity);
      float c[4] = {};
      add_whole_run<main>(c, own + slot.at * job.slot_bytes, b, lane);
      if constexpr (main == PackedFormat::f8) {
        const float2 scale = scales[slot.at * most_piece_runs];
#pragma unroll
        for (int j = 0; j < 4; ++j) c[j] = c[j] * half_row_inverse * (j < 2 ? scale.x : scale.y);
      } else if constexpr (main == PackedFormat::q4) {
#pragma unroll
        for (float& sum : c) sum *= 1 / LaneTile<main>::small;
      }
      Sums::store(to, c, lane);
      to += most_piece_runs * Sums::size;
      release(i, slot);
      slot.advance(job.slots);
    }
  }
#pragma unroll 1
  for (; i < all; ++i) {
    sm90::wait(full + slot.at, slot.parity);
    add_piece<main, rows>(job, pieces[i], slot.at, x_of_lane, warps);
    release(i, slot);
    slot.advance(job.slots);
  }
  __syncthreads();
  if (!inside) return;
  const float total = add_runs(
      sums + mine * job.runs * Sums::size + Sums::place(thread % strip_rows, row_of_output),
      job.runs, Sums::size);
  if (out.store == StreamStore::bf16)
    static_cast<Bf16*>(out.y)[to_y] = __bfloat16_as_ushort(__float2bfloat16_rn(total));
  else
    static_cast<float*>(out.y)[to_y] = out.store == StreamStore::f32 ? total : before + total;
}

template <PackedFormat main>
__global__ void __launch_bounds__(most_warps* warp_lanes, 2)
    row_kernel(const __grid_constant__ RowJob job) {
  multiply<main, 1>(job);
}

template <PackedFormat main>
__global__ void __maxnreg__(64) rows_kernel(const __grid_constant__ RowJob job) {
  multiply<main, most_job_rows>(job);
}

// --- The launch --------------------------------------------------------------------------------

// rows: those that the kernel has room for.
void lay_out(RowJob& job, PackedFormat main, int rows, int share) {
  int end = job.slots * job.slot_bytes;
  const auto take = [&end](int bytes) {
    const int begin = end;
    end += (bytes + 15) / 16 * 16;
    return begin;
  };
  job.x_stride = job.column_tiles * 128 + (rows > 1 ? 16 : 0);  // + 16: two rows share no banks
  job.x = take(rows * job.x_stride);
  job.half_x = take(main == PackedFormat::f8 && rows == 1 ? job.column_tiles * 128 : 0);
  constexpr int floats = static_cast<int>(sizeof(float));
  const int sums = share * job.runs * rows * strip_rows * floats;
  if (rows == 1) {
    job.sums = take(sums);
    job.norm = take(norm_floats * floats);
  } else {  // one behind the other in the same place
    const int weight = job.input.residual ? RowsNorm::columns * floats : 0;
    const int norm = job.input.residual ? rows * norm_floats * floats : 0;
    job.sums = take(std::max(sums, weight + norm));
    job.norm = job.sums + weight;
  }
  job.scales = take(job.slots * most_piece_runs * static_cast<int>(sizeof(float2)));
  job.pieces = take(most_pieces * static_cast<int>(sizeof(Piece)));
  job.counts = take(static_cast<int>(sizeof(PieceCounts)));
  job.full = take(job.slots * static_cast<int>(sizeof(sm90::Barrier)));
  job.empty = take(job.slots * static_cast<int>(sizeof(sm90::Barrier)));
  job.bytes = end;
}

// Heavy strips, which have the bytes of two others at least, go to the blocks that have nothing in
// the last round and then, where that round has room, nothing in the last but one either.
void place_heavy(RowJob& job, int share, int blocks) {
  const auto fits = [&](int free) {
    const int last_round = job.strips + free - (share - 1) * blocks;
    return share > 1 && last_round + job.heavy <= blocks;
  };
  job.free = share > 2 && fits(job.heavy) ? job.heavy : 0;
  job.free_place = (share - 2) * blocks - job.free;
  const int end = fits(job.free) ? (share - 1) * blocks - job.free : job.strips;
  job.heavy_place = end - job.heavy;
}

void launch(cudaStream_t stream, void (*kernel)(RowJob), const RowJob& job) {
  keep_all_shared(kernel);
  int warps = job.rows > 1 || job.runs > least_warps ? most_warps : least_warps;
  size_t bytes = static_cast<size_t>(job.bytes);
  if (2 * job.strips > multiprocessors()) {
    // One block on a multiprocessor, no two. Behind the experts' down kernel of a few rows, whose
    // blocks have half the memory, by registers: 17 warps of 64.
    if (job.rows > 1 && job.input.residual)
      ++warps;
    else
      bytes = alone_on_multiprocessor(bytes);
  }
  launch_overlapped("stream_matmul_row", kernel,
                    dim3(static_cast<unsigned>(std::min(job.strips, multiprocessors()))),
                    dim3(static_cast<unsigned>(warps * warp_lanes)), bytes, stream, job);
}

}  // namespace

bool stream_matmul_row(cudaStream_t stream, const StreamInput& input, int64_t rows,
                       const StreamProduct* products, int count) {
  if (rows > most_job_rows) return false;
  RowJob job{};
  job.input = input;
  job.rows = static_cast<int>(rows);
  job.columns = static_cast<int>(products[0].weight.columns);
  job.products = count;
  job.strips = list_products(products, count, job.product);
  job.column_tiles = static_cast<int>(products[0].weight.column_tiles());
  job.runs = (job.column_tiles + run_tiles - 1) / run_tiles;
  PackedFormat main = PackedFormat::bf16;
  for (int i = 0; i < count; ++i) {
    const PackedFormat format = products[i].weight.format;
    if (format == PackedFormat::bf16) continue;
    if (main != PackedFormat::bf16 && main != format) return false;
    main = format;
  }
  const int blocks = multiprocessors(), share = (job.strips + blocks - 1) / blocks;
  for (int i = count; main != PackedFormat::bf16 && i > 0; --i) {
    if (products[i - 1].weight.format != PackedFormat::bf16) break;
    job.heavy = job.strips - job.product[i - 1].first_strip;
  }
  place_heavy(job, share, blocks);
  if (share > most_strips || job.columns % 4 != 0) return false;
  if (input.residual &&
      (rows == 1 ? job.columns > RowNorm::most_columns : job.columns != RowsNorm::columns))
    return false;
  // A strip's scales start at multiples of 16 bytes.
  if (main == PackedFormat::f8 && job.runs % 2 != 0) return false;
  job.slot_bytes = std::min(job.runs, main == PackedFormat::bf16 ? least_warps : most_piece_runs) *
                   run_bytes(main);
  job.slot_bytes = std::max(job.slot_bytes, run_bytes(PackedFormat::bf16));
  job.bf16_piece_runs = std::min(least_warps, job.slot_bytes / run_bytes(PackedFormat::bf16));
  job.strip_pieces = (job.runs + most_piece_runs - 1) / most_piece_runs;
  job.bf16_strip_pieces = (job.runs + job.bf16_piece_runs - 1) / job.bf16_piece_runs;
  const int pieces = share * job.bf16_strip_pieces;
  if (pieces > most_pieces) return false;
  for (job.slots = std::min(most_slots, pieces); job.slots > 0; --job.slots) {
    lay_out(job, main, rows == 1 ? 1 : most_job_rows, share);
    if (job.bytes <= shared_budget) break;
  }
  if (job.slots < std::min(2, pieces)) return false;
  const auto start = [&]<PackedFormat format>() {
    launch(stream, rows == 1 ? row_kernel<format> : rows_kernel<format>, job);
  };
  switch (main) {
    case PackedFormat::bf16:
      start.operator()<PackedFormat::bf16>();
      break;
    case PackedFormat::f8:
      start.operator()<PackedFormat::f8>();
      break;
    case PackedFormat::q4:
      start.operator()<PackedFormat::q4>();
  }
  return true;
}

}  // namespace qnext::ops::cuda
