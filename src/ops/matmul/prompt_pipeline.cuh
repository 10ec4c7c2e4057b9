// The product of many rows on wgmma: what dense products and experts share.
//
//   sum[feature, row] = sum over k of w[feature, k] * x[row, k]
//
// Weights are the A operand, from registers: a lane loads its packed fragment from shared memory
// and widens it there (so f8 and q4 cost what bf16 costs), while earlier products run. Rows of x
// are the B operand, bf16 in shared memory. A tile is 256 features x up to 192 rows: two warpgroups
// of 128 features, each as two m64 with N rows, 2 * N / 2 sums a thread. Wide in features because
// packed weights are the cheap operand to bring: at 256 x 192 a stage of 64 columns brings 40 KB
// (f8) for 1536 clocks of tensor core, 27 bytes a clock of the about 38 that L2 gives an SM.
//
// A third warpgroup only copies, through a ring of stages of 64 columns: `full` barriers say that a
// stage has come, `empty` ones that all eight multiplying warps are through with it. Each thread
// of the two multiplying warpgroups needs 240 registers; the copying one gives its own away.
//
// The scale of f8 (8 rows x 128 columns) must multiply a part of the sum over K. The sums are kept
// in units of the current block's scale: between blocks they are multiplied by previous scale /
// this scale, at the end by the last. One fp32 rounding a block, no second set of sums. A copying
// lane owns a scale's 8 rows and leaves the factors beside the stage. Where a scale is zero, its
// weights are brought as zeros and the unit stays. The scales of 8 rows must lie within 2^60 of
// each other (else the sums may leave fp32's range); those of a trained matrix lie within 2^10.
//
// Rows of e4m3 (f8_rows_cuda.h) times weights of f8 are products of e4m3: twice the rate, and
// nothing to widen. The core sums a row and a feature with 13 bits behind the leading one, the
// whole K: what that loses stays below what rounding the rows has lost (there are no registers for
// a second set of sums). A row's unit multiplies its sums at the end.
//
// Order of a sum: k in steps of 16 or 32, ascending, whatever the tile: a row's bits depend on it
// alone.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <type_traits>

#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/launch_cuda.cuh"
#include "ops/matmul/packed_tile.cuh"
#include "ops/sm90/wgmma.cuh"

namespace qnext::ops::cuda::prompt {

using sm90::Barrier;

constexpr int group_threads = 128;
constexpr int multiplying_groups = 2;
constexpr int threads = (multiplying_groups + 1) * group_threads;
constexpr int multiplying_warps = multiplying_groups * group_threads / warp_lanes;
// 384 threads start with 168 registers each (65,536 / 384, in eights); what they hold together is
// all there is to share: 2 * 240 + 24 = 3 * 168. More would wait for ever.
constexpr int multiplying_registers = 240;
constexpr int copying_registers = 24;

constexpr int blocks_a_thread = 2;  // m64 blocks
constexpr int tile_strips = multiplying_warps * blocks_a_thread;
constexpr int tile_features = tile_strips * 16;
constexpr int most_tile_rows = 192;

// Of the activations.
enum class RowFormat { bf16, f8 };
// 64 columns.
constexpr int row_bytes_of(RowFormat format) {
  return static_cast<int>(tile_columns) * (format == RowFormat::bf16 ? 2 : 1);
}

// What a stage of f8 weights needs beside the weights: of each half strip (8 rows).
struct Scaling {
  float ratio[2 * tile_strips];  // previous scale / this one; where a block of 128 begins
  float scale[2 * tile_strips];  // the unit of the sums from here on
};

// As many stages as fit into 227 KB.
constexpr int stages_that_fit(PackedFormat format, RowFormat row_format) {
  if (row_format == RowFormat::f8) return 7;
  return format == PackedFormat::bf16 ? 4 : format == PackedFormat::f8 ? 5 : 6;
}

template <PackedFormat format_, RowFormat row_format_ = RowFormat::bf16,
          int most_rows = most_tile_rows>
struct Stages {
  static constexpr PackedFormat format = format_;
  static constexpr RowFormat row_format = row_format_;
  static_assert(row_format == RowFormat::bf16 || format == PackedFormat::f8);
  static constexpr int row_bytes = row_bytes_of(row_format);
  static constexpr int rows_bytes = most_rows * row_bytes;
  static constexpr int tile = static_cast<int>(tile_bytes(format));
  static constexpr int weights_bytes = tile_strips * tile;
  static constexpr int stage_bytes = rows_bytes + weights_bytes;
  static constexpr int count = stages_that_fit(format, row_format);
  static_assert(stage_bytes % 1024 == 0, "the swizzle counts from multiples of 1024");

  struct Control {
    Barrier full[count], empty[count];
    Scaling scaling[format == PackedFormat::f8 ? count : 1];
    // Units of a tile's rows, with its last stage.
    alignas(16) float unit[row_format == RowFormat::f8 ? count : 1][most_rows];
  };
  // 1024 more: dynamic shared memory begins at a multiple of 16.
  static constexpr int shared_bytes = 1024 + count * stage_bytes + int{sizeof(Control)};
  static_assert(shared_bytes <= 227 << 10);

  std::byte* base;
  Control* control;

  __device__ explicit Stages(std::byte* shared) {
    base = shared + (1024 - sm90::shared_address(shared) % 1024) % 1024;
    control = reinterpret_cast<Control*>(base + count * stage_bytes);
  }
  __device__ std::byte* rows(int stage) const { return base + stage * stage_bytes; }
  __device__ std::byte* weights(int stage) const { return rows(stage) + rows_bytes; }
  __device__ uint64_t rows_operand(int stage) const {
    return row_format == RowFormat::bf16 ? sm90::swizzled_rows(rows(stage))
                                         : sm90::swizzled_rows_64(rows(stage));
  }

  // By one thread, before the block synchronises. A stage is full when `copying_warps` arrived.
  __device__ void set_up(uint32_t copying_warps) const {
    for (int stage = 0; stage < count; ++stage) {
      sm90::set_up(&control->full[stage], copying_warps);
      sm90::set_up(&control->empty[stage], multiplying_warps);
    }
    sm90::publish_barriers();
  }
};

// Where a warp stands in the ring of stages.
template <int count>
struct Position {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == count) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// A packed matrix as kernels see it.
struct Weights {
  const std::byte* tiles = nullptr;
  const float* scales = nullptr;
  int strips = 0;
  int column_tiles = 0;

  Weights() = default;
  explicit Weights(const PackedMatrix& matrix)
      : tiles(matrix.tiles),
        scales(matrix.scales),
        strips(static_cast<int>(matrix.row_tiles())),
        column_tiles(static_cast<int>(matrix.column_tiles())) {}
};

// Stages of f8 come in pairs, a scale's 128 columns: behind the last of an odd number of column
// tiles follows one of zeros.
template <PackedFormat format>
constexpr int stages_a_turn = format == PackedFormat::f8 ? 2 : 1;
template <PackedFormat format>
__device__ int stages_of(int column_tiles) {
  return (column_tiles + stages_a_turn<format> - 1) / stages_a_turn<format> * stages_a_turn<format>;
}

// --- Copying -----------------------------------------------------------------------------------

// f8: a lane's half strip while a warp copies a tile's weights.
struct LaneScale {
  const float* next = nullptr;  // null: beyond the matrix
  float coming = 1, unit = 1;
  bool zero = false;

  // Where a block of 128 columns begins; `more`: it is not the last.
  __device__ float ratio(bool more) {
    const float scale = coming, before = unit;
    if (next && more) coming = __ldg(next += 2);
    zero = scale == 0;
    if (!zero) unit = scale;
    return zero ? 1.0f : before / scale;
  }
};

// By a whole warp, the rare way to bring a tile of f8: with rows g (zeros & 1) or g + 8 (zeros & 2)
// erased. from null: all of it.
__device__ inline void copy_masked(std::byte* to, const std::byte* from, unsigned zeros) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const uint32_t mask = (zeros & 1 ? 0 : 0xFF00FF00u) | (zeros & 2 ? 0 : 0x00FF00FFu);
#pragma unroll
  for (int i = 0; i < tile_bytes(PackedFormat::f8) / 16; i += warp_lanes) {
    uint4 words{0, 0, 0, 0};
    if (from) words = __ldg(reinterpret_cast<const uint4*>(from) + i + lane);
    reinterpret_cast<uint4*>(to)[i + lane] = {words.x & mask, words.y & mask, words.z & mask,
                                              words.w & mask};
  }
}

// By one thread: a stage's weights, as sm90::map_tiles cuts them. One instruction: a copy for each
// strip would take longer than the stage's products.
template <PackedFormat format>
__device__ void copy_box(void* to, const CUtensorMap* map, int column_tile, int strip,
                         Barrier* barrier) {
  constexpr int parts = tile_bytes(format) > 1024 ? tile_bytes(format) / 1024 : 1;
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(sm90::shared_address(to)),
      "l"(map), "r"(0), "r"(column_tile * parts), "r"(strip), "r"(sm90::shared_address(barrier))
      : "memory");
}

// By a whole warp: brings the weights of one tile's strips (first_strip ..), stage after stage.
// map: of the weights and what lies before them, map_strip: where first_strip is there.
// more(stage, k, last) may add copies to the stage, by lane 0, whose bytes are more_bytes(last).
template <typename Stages, typename MoreBytes, typename More>
__device__ void copy_weights(const Stages& stages, Position<Stages::count>& at,
                             const Weights& weights, int first_strip, const CUtensorMap* map,
                             int map_strip, MoreBytes more_bytes, More more) {
  constexpr PackedFormat format = Stages::format;
  constexpr int tile = Stages::tile;
  constexpr bool scaled = format == PackedFormat::f8;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int strips = min(tile_strips, weights.strips - first_strip);
  const int64_t strip_bytes = static_cast<int64_t>(weights.column_tiles) * tile;
  const std::byte* const base = weights.tiles + first_strip * strip_bytes;
  LaneScale own;
  if (scaled && lane / 2 < strips) {
    const int64_t strip_scales = int64_t{2} * ((weights.column_tiles + 1) / 2);
    own.next = weights.scales + (first_strip + lane / 2) * strip_scales + lane % 2;
    own.coming = __ldg(own.next);
  }
  const int count = stages_of<format>(weights.column_tiles);
  for (int k = 0; k < count; ++k) {
    const bool behind = k >= weights.column_tiles;
    unsigned zeros = 0;  // half strips to be erased: a bit each
    sm90::wait(&stages.control->empty[at.stage], at.parity ^ 1);
    if constexpr (scaled) {
      Scaling& scaling = stages.control->scaling[at.stage];
      if (k % 2 == 0) scaling.ratio[lane] = own.ratio(k + 2 < weights.column_tiles);
      scaling.scale[lane] = own.unit;
      zeros = behind ? ~0u : __ballot_sync(whole_warp, own.zero);
      __syncwarp();
    }
    Barrier* full = &stages.control->full[at.stage];
    if (zeros == 0) {
      if (lane == 0) {
        sm90::arrive_expecting(
            full, static_cast<uint32_t>(Stages::weights_bytes + more_bytes(k == count - 1)));
        copy_box<format>(stages.weights(at.stage), map, k, map_strip, full);
      }
    } else {                                 // strip by strip
      unsigned copied = (1u << strips) - 1;  // by the copy engine: a bit a strip
      for (int strip = 0; strip < strips; ++strip) {
        const unsigned of_strip = zeros >> (2 * strip) & 3;
        if (of_strip == 0) continue;
        copied &= ~(1u << strip);
        copy_masked(stages.weights(at.stage) + strip * tile,
                    behind ? nullptr : base + strip * strip_bytes + k * tile, of_strip);
      }
      sm90::publish_to_products();  // the copy engine writes here next
      __syncwarp();
      if (lane == 0)
        sm90::arrive_expecting(
            full, static_cast<uint32_t>(__popc(copied) * tile + more_bytes(k == count - 1)));
      __syncwarp();
      if (copied >> lane & 1)
        sm90::bulk_copy(stages.weights(at.stage) + lane * tile,
                        base + lane * strip_bytes + static_cast<int64_t>(k) * tile, tile, full);
    }
    if (lane == 0) more(at.stage, k, k == count - 1);
    at.advance();
  }
}

// --- Multiplying -------------------------------------------------------------------------------

// Products of a stage's 64 columns, and those that a 16-byte piece of a lane's weights serves.
__host__ __device__ constexpr int steps_a_stage(RowFormat format) {
  return format == RowFormat::bf16 ? 4 : 2;
}
__host__ __device__ constexpr int steps_a_load(PackedFormat format, RowFormat row_format) {
  if (row_format == RowFormat::f8 || format == PackedFormat::bf16) return 1;
  return format == PackedFormat::f8 ? 2 : 4;
}

// factors[0] for rows g, factors[1] for rows g + 8.
template <int N>
__device__ void scale_sums(float (&sum)[N / 2], const float* factors) {
  const float upper = factors[0], lower = factors[1];
#pragma unroll
  for (int i = 0; i < N / 2; i += 4) {
    sum[i] *= upper;
    sum[i + 1] *= upper;
    sum[i + 2] *= lower;
    sum[i + 3] *= lower;
  }
}

// Row r of a tile is column r of its sums: times the row's unit.
template <int N>
__device__ void scale_rows(float (&sum)[N / 2], const float* units) {
  units += threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    const float2 unit = *reinterpret_cast<const float2*>(units + 8 * j);
    sum[4 * j] *= unit.x;
    sum[4 * j + 1] *= unit.y;
    sum[4 * j + 2] *= unit.x;
    sum[4 * j + 3] *= unit.y;
    asm volatile("" ::: "memory");  // one j after the other: all units together need too much
  }
}

// One stage's products. scale: a block of 128 columns begins. The stage before is released.
template <int N, bool scale, typename Stages>
__device__ void multiply_stage(const Stages& stages, Position<Stages::count>& at, int first_strip,
                               int& previous, float (&sum)[blocks_a_thread][N / 2]) {
  constexpr RowFormat row_format = Stages::row_format;
  constexpr int loads = steps_a_load(Stages::format, row_format);
  const bool leader = threadIdx.x % warp_lanes == 0;
  sm90::wait(&stages.control->full[at.stage], at.parity);
  const uint64_t rows = stages.rows_operand(at.stage);
  const std::byte* weights = stages.weights(at.stage) + first_strip * Stages::tile;
  LaneTile<Stages::format> raw[blocks_a_thread];
#pragma unroll
  for (int step = 0; step < steps_a_stage(row_format); ++step) {
#pragma unroll
    for (int m = 0; m < blocks_a_thread; ++m) {
      // All but the latest product have ended: that of this block's sums, too.
      sm90::wait_for_products<1>();
      if (step == 0 && m == blocks_a_thread - 1 && previous >= 0 && leader)
        sm90::arrive(&stages.control->empty[previous]);
      // What is not used of a load costs nothing.
      if (step % loads == 0)
        raw[m].load(weights + m * Stages::tile, static_cast<int>(threadIdx.x) % warp_lanes);
      uint32_t a[4];
      if constexpr (row_format == RowFormat::f8)
        raw[m].f8_fragment(step, a);
      else
        raw[m].fragment(step, a);
      if constexpr (scale) {
        if (step == 0)
          scale_sums<N>(sum[m], stages.control->scaling[at.stage].ratio + 2 * (first_strip + m));
      }
      sm90::order_registers();
      if constexpr (row_format == RowFormat::f8)
        sm90::multiply_rows_f8<N>(sum[m], a, rows + 2 * step, true);
      else
        sm90::multiply_rows<N>(sum[m], a, rows + 2 * step, true);
      sm90::commit_products();
    }
  }
  previous = at.stage;
  at.advance();
}

// By all threads of a multiplying warpgroup: sum[m] = the tile's products, complete. first_strip:
// of this warp within the tile; block m is strip first_strip + m. units: of rows of e4m3, in shared
// memory; null: they came with the last stage.
template <int N, typename Stages>
__device__ void multiply_tile(const Stages& stages, Position<Stages::count>& at, int column_tiles,
                              int first_strip, const float* units,
                              float (&sum)[blocks_a_thread][N / 2]) {
  constexpr PackedFormat format = Stages::format;
#pragma unroll
  for (int m = 0; m < blocks_a_thread; ++m)
#pragma unroll
    for (int i = 0; i < N / 2; ++i) sum[m][i] = 0;
  int previous = -1;
  const auto stage = [&](auto scale) {
    multiply_stage<N, decltype(scale)::value>(stages, at, first_strip, previous, sum);
  };
  if constexpr (format == PackedFormat::f8) {
    // Sums may be scaled while other products run only where the compiler sees these start: in the
    // middle of the loop, not at its top.
    stage(std::false_type());
    for (int k = 2; k < column_tiles; k += 2) {
      stage(std::false_type());
      stage(std::true_type());
    }
    stage(std::false_type());
  } else {
    // With the first stage apart the compiler finds registers for larger tiles.
    stage(std::false_type());
    for (int k = 1; k < column_tiles; ++k) stage(std::false_type());
  }
  sm90::wait_for_products<0>();
  if constexpr (format == PackedFormat::f8) {
#pragma unroll
    for (int m = 0; m < blocks_a_thread; ++m)
      scale_sums<N>(sum[m], stages.control->scaling[previous].scale + 2 * (first_strip + m));
  }
  if constexpr (Stages::row_format == RowFormat::f8) {
#pragma unroll
    for (int m = 0; m < blocks_a_thread; ++m)
      scale_rows<N>(sum[m], units ? units : stages.control->unit[previous]);
  }
  __syncwarp();
  if (threadIdx.x % warp_lanes == 0) sm90::arrive(&stages.control->empty[previous]);
}

}  // namespace qnext::ops::cuda::prompt
