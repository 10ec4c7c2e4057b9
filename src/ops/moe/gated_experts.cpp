// Rows are grouped by expert, so that an expert's weights are read once. Two regions:
//   1. tiles of (expert, rows, part of its width): gate, up, silu(gate) * up, and at once the int8
//      form that `down` reads, while the values are in cache;
//   2. tiles of hidden columns: every expert's product into a scratch row for each (row, slot) of
//      the tile's width, then each row's slots added in order. All tiles are equal work, however
//      uneven the experts' loads, and a tile needs nobody else's.
// A few rows, those of a decode step, are as fast as memory, which wants long forward reads: a
// worker takes several tiles at once and visits those of one expert as one, less and less towards
// the end, so that all finish together. Region 2 then goes expert by expert too, into scratch rows
// of the hidden width, which are added afterwards.
#include <algorithm>
#include <atomic>
#include <vector>

#include "base/error.h"
#include "ops/matmul/kernel_tables.h"
#include "ops/matmul/layout.h"
#include "ops/moe/moe.h"
#include "ops/moe/moe_kernels.h"

namespace qnext::ops {

namespace {

// More rows are taken in turns: an expert's weights are then read once a turn, which is as good as
// once, and the workspace stays within bounds.
constexpr int64_t largest_turn = 1024;
// Columns of scratch for region 2, all workers together.
constexpr int64_t scratch_columns = 1024;
constexpr int64_t rows_at_once = 64;
constexpr int64_t few_rows = 4;
// Each jump to another expert costs the better part of a microsecond before its weights stream, so
// a visit should read 100 KiB and more; a decode step still makes dozens of tiles.
constexpr int64_t width_tile = 4 * layout::block;
// Outputs that few rows take in one visit.
constexpr int64_t longest_visit = 16 * layout::block;
constexpr int64_t visit_values = rows_at_once * width_tile;
static_assert(few_rows * longest_visit <= visit_values);

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
// A row of the activated width, float or int8 (which is smaller).
int64_t inner_row_bytes(int64_t width) {
  return round_up(width * 4, 64);
}

// The (row, slot) pairs of one expert.
struct Group {
  const GatedExpert* expert;
  int64_t first;  // in `order`
  int64_t count;
  int64_t first_tile;  // in region 1
};

struct Turn {
  Activations x;
  const float* weights;
  int64_t slots;
  float* y;
  int64_t y_stride;
  std::vector<int32_t> order;  // pairs row * slots + slot, by expert, then ascending
  std::vector<Group> groups;
  int64_t tiles = 0;
  std::byte* inner;  // [pairs] rows of inner_bytes
  int64_t inner_bytes;
  float* scratch;  // [workers][pairs, tile]; few rows: [pairs, hidden]
  bool few() const { return x.rows <= few_rows; }
};

int64_t width_tiles(const GatedExpert& expert) {
  return (expert.gate.rows + width_tile - 1) / width_tile;
}

void group_by_expert(std::span<const GatedExpert> experts, const int32_t* ids, Turn& turn) {
  const int64_t pairs = turn.x.rows * turn.slots;
  std::vector<int32_t> next(experts.size() + 1);
  for (int64_t i = 0; i < pairs; ++i) {
    QNEXT_CHECK(ids[i] >= 0 && static_cast<size_t>(ids[i]) < experts.size(), "expert {}", ids[i]);
    ++next[static_cast<size_t>(ids[i]) + 1];
  }
  for (size_t e = 0; e < experts.size(); ++e) {
    if (const int32_t count = next[e + 1]) {
      turn.groups.push_back({&experts[e], next[e], count, turn.tiles});
      turn.tiles += (count + rows_at_once - 1) / rows_at_once * width_tiles(experts[e]);
    }
    next[e + 1] += next[e];
  }
  turn.order.resize(static_cast<size_t>(pairs));
  for (int64_t i = 0; i < pairs; ++i)
    turn.order[static_cast<size_t>(next[static_cast<size_t>(ids[i])]++)] = static_cast<int32_t>(i);
}

struct Kernels {
  QuantizeKernel quantize = quantize_kernel();
  SwigluKernel swiglu =
      IsaTable<SwigluKernel>{scalar::swiglu, avx2::swiglu, avx512::swiglu}.choose();
  CombineKernel combine =
      IsaTable<CombineKernel>{scalar::combine, avx2::combine, avx512::combine}.choose();
};

// Region 1: `count` outputs from `begin` on, for pairs order[0 .. rows).
void run_gate_up(const Turn& turn, const Kernels& kernels, const GatedExpert& expert,
                 const int32_t* order, int64_t rows, int64_t begin, int64_t count) {
  alignas(64) float gates[visit_values];
  alignas(64) float ups[visit_values];
  const auto multiply = [&](const WeightMatrix& weight, float* out) {
    const void* x[rows_at_once];
    float* y[rows_at_once];
    for (int64_t i = 0; i < rows; ++i) {
      x[i] = activation_row(turn.x, weight.dtype, order[i] / turn.slots);
      y[i] = out + i * count;
    }
    tile_kernel(weight.dtype)({weight.data, weight.block_scales, weight.columns, begin,
                               begin + count, rows, x, y, false});
  };
  multiply(expert.gate, gates);
  multiply(expert.up, ups);
  for (int64_t i = 0; i < rows; ++i) {
    float* gate = gates + i * count;
    const float* up = ups + i * count;
    std::byte* inner = turn.inner + order[i] * turn.inner_bytes;
    if (!is_block_quantized(expert.down.dtype)) {
      kernels.swiglu(gate, up, count, reinterpret_cast<float*>(inner) + begin);
      continue;
    }
    kernels.swiglu(gate, up, count, gate);
    auto* blocks = reinterpret_cast<layout::ActivationBlock*>(inner);
    kernels.quantize(gate, count / layout::block, blocks + begin / layout::block);
  }
}

// Tiles from `tile` on, of one expert and no more than `limit`; returns how many.
int64_t run_gate_up_tiles(const Turn& turn, const Kernels& kernels, int64_t tile, int64_t limit) {
  const Group& group = *std::prev(std::upper_bound(
      turn.groups.begin(), turn.groups.end(), tile,
      [](int64_t index, const Group& candidate) { return index < candidate.first_tile; }));
  tile -= group.first_tile;
  const int64_t across = width_tiles(*group.expert);
  const int64_t tiles = std::min(limit, across - tile % across);
  const int64_t row = tile / across * rows_at_once;
  const int64_t begin = tile % across * width_tile;
  run_gate_up(turn, kernels, *group.expert, turn.order.data() + group.first + row,
              std::min(rows_at_once, group.count - row), begin,
              std::min(tiles * width_tile, group.expert->gate.rows - begin));
  return tiles;
}

// One expert's outputs [begin, end) for all its pairs, into y rows of pairs `stride` floats apart,
// where output `begin` is the first.
void run_down(const Turn& turn, const Group& group, int64_t begin, int64_t end, float* out,
              int64_t stride) {
  const void* x[rows_at_once];
  float* y[rows_at_once];
  const WeightMatrix& weight = group.expert->down;
  MatmulTile tile{weight.data, weight.block_scales, weight.columns, begin, end, 0, x, y, false};
  for (int64_t row = 0; row < group.count; row += rows_at_once) {
    tile.rows = std::min(rows_at_once, group.count - row);
    for (int64_t i = 0; i < tile.rows; ++i) {
      const int64_t pair = turn.order[static_cast<size_t>(group.first + row + i)];
      x[i] = turn.inner + pair * turn.inner_bytes;
      y[i] = out + pair * stride;
    }
    tile_kernel(weight.dtype)(tile);
  }
}

// Adds hidden columns [begin, end) of each row's slots, which lie in parts [pairs, stride].
void combine_slots(const Turn& turn, const Kernels& kernels, const float* parts, int64_t stride,
                   int64_t begin, int64_t end) {
  for (int64_t row = 0; row < turn.x.rows; ++row)
    kernels.combine(parts + row * turn.slots * stride, stride, turn.weights + row * turn.slots,
                    turn.slots, end - begin, turn.y + row * turn.y_stride + begin);
}

// Region 2: hidden columns [begin, end). parts [pairs, end - begin].
void run_down_tile(const Turn& turn, const Kernels& kernels, int64_t begin, int64_t end,
                   float* parts) {
  const int64_t columns = end - begin;
  for (const Group& group : turn.groups) run_down(turn, group, begin, end, parts, columns);
  combine_slots(turn, kernels, parts, columns, begin, end);
}

// Wide enough for long reads, narrow enough for every worker to get a few and a scratch of its own.
int64_t down_tile(int64_t hidden, int threads) {
  int64_t tile = 256;
  while (tile > layout::panel_rows &&
         (tile * threads > scratch_columns || hidden < 4 * tile * threads))
    tile /= 2;
  return tile;
}

// Takes tiles for the calling worker until none are left: up to `most` at a time, fewer towards the
// end. visit(tile, limit) does tiles from `tile` on and returns how many, up to `limit`.
template <typename Visit>
void share_out(std::atomic<int64_t>& next, int64_t tiles, int workers, int64_t most,
               const Visit& visit) {
  for (;;) {
    int64_t begin = next.load(std::memory_order_relaxed);
    int64_t end;
    do {
      if (begin >= tiles) return;
      end = begin + std::clamp((tiles - begin) / (2 * workers), int64_t{1}, most);
    } while (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed));
    while (begin < end) begin += visit(begin, end - begin);
  }
}

// Region 2 of few rows: tiles of an expert's hidden columns, numbered one expert after another.
void run_down_of_few(ThreadPool& pool, const Turn& turn, const Kernels& kernels, int64_t work) {
  const int64_t hidden = turn.x.columns;
  const int64_t across = (hidden + width_tile - 1) / width_tile;
  const int64_t tiles = across * static_cast<int64_t>(turn.groups.size());
  std::atomic<int64_t> next{0};
  pool.run_shared(work, [&](int) {
    share_out(next, tiles, pool.size(), across, [&](int64_t tile, int64_t limit) {
      const int64_t taken = std::min(limit, across - tile % across);
      const int64_t begin = tile % across * width_tile;
      run_down(turn, turn.groups[static_cast<size_t>(tile / across)], begin,
               std::min(begin + taken * width_tile, hidden), turn.scratch + begin, hidden);
      return taken;
    });
  });
  combine_slots(turn, kernels, turn.scratch, hidden, 0, hidden);
}

void run_turn(ThreadPool& pool, const Turn& turn) {
  const Kernels kernels;
  const int64_t hidden = turn.x.columns;
  const int64_t pairs = turn.x.rows * turn.slots;
  const int64_t down_work = pairs * hidden * turn.inner_bytes / 4;  // of widest experts only
  std::atomic<int64_t> next{0};
  pool.run_shared(2 * down_work, [&](int) {
    share_out(
        next, turn.tiles, pool.size(), turn.few() ? longest_visit / width_tile : 1,
        [&](int64_t tile, int64_t limit) { return run_gate_up_tiles(turn, kernels, tile, limit); });
  });
  if (turn.few()) return run_down_of_few(pool, turn, kernels, down_work);
  const int64_t width = down_tile(hidden, pool.size());
  next = 0;
  pool.run_shared(down_work, [&](int worker) {
    if ((worker + 1) * width > std::max(scratch_columns, width)) return;
    for (;;) {
      const int64_t begin = next.fetch_add(width, std::memory_order_relaxed);
      if (begin >= hidden) return;
      run_down_tile(turn, kernels, begin, std::min(begin + width, hidden),
                    turn.scratch + worker * pairs * width);
    }
  });
}

}  // namespace

size_t gated_experts_workspace(int64_t rows, int64_t slots, int64_t hidden, int64_t largest_width) {
  const auto bytes = [&](int64_t most_rows, int64_t columns) {
    return std::min(rows, most_rows) * slots * (inner_row_bytes(largest_width) + columns * 4);
  };
  return static_cast<size_t>(
      std::max(bytes(largest_turn, scratch_columns), bytes(few_rows, hidden)));
}

void gated_experts(ThreadPool& pool, const Activations& x, std::span<const GatedExpert> experts,
                   const int32_t* ids, const float* weights, int64_t slots, float* y,
                   int64_t y_stride, void* workspace) {
  int64_t largest_width = 0;
  for (const GatedExpert& expert : experts)
    largest_width = std::max(largest_width, expert.gate.rows);
  for (int64_t row = 0; row < x.rows; row += largest_turn) {
    Turn turn{};
    turn.x = rows_of(x, row, std::min(largest_turn, x.rows - row));
    turn.weights = weights + row * slots;
    turn.slots = slots;
    turn.y = y + row * y_stride;
    turn.y_stride = y_stride;
    turn.inner = static_cast<std::byte*>(workspace);
    turn.inner_bytes = inner_row_bytes(largest_width);
    turn.scratch = reinterpret_cast<float*>(turn.inner + turn.x.rows * slots * turn.inner_bytes);
    group_by_expert(experts, ids + row * slots, turn);
    run_turn(pool, turn);
  }
}

}  // namespace qnext::ops
