// What the kernels of more than 8 rows share: rows come in passes, boxes of a pass's rows by 64
// columns in the 128-byte swizzle (sm90/wgmma.cuh), weights a strip a warp through a ring of its
// own.
#pragma once

#include <cuda.h>

#include <algorithm>

#include "ops/matmul/stream_matmul.cuh"

namespace qnext::ops::cuda {

constexpr int slots = 2;  // of a warp's ring
constexpr int slot_bytes = 4096;
constexpr int box_row_bytes = static_cast<int>(tile_columns) * 2;

struct PassJob {
  StreamInput input;
  int rows;
  StreamedWeight product[most_stream_products];
  int products;
  int strips;
  int column_tiles;
  int runs;
};

// Passes of 64 rows on wgmma (stream_matmul_wide_sm90.cu): whether that is the faster kernel, and
// the launch.
bool wide_pays(const PassJob& job);
void stream_matmul_wide(cudaStream_t stream, const PassJob& job, int64_t columns);

// By one lane: one run's columns of a pass of `rows` rows; what lies outside comes as zeros.
__device__ inline void copy_run(std::byte* to, const CUtensorMap* map, const PassJob& job, int run,
                                int first_row, int rows, sm90::Barrier* full) {
  const int tiles = min(run_tiles, job.column_tiles - run * run_tiles);
  const int bytes = rows * box_row_bytes;
  sm90::arrive_expecting(full, static_cast<uint32_t>(tiles * bytes));
  for (int tile = 0; tile < tiles; ++tile)
    sm90::copy_box(to + tile * bytes, map,
                   run * run_columns + tile * static_cast<int>(tile_columns), first_row, full);
}
// Ordinary stores of earlier kernels before reads by the copy engine.
__device__ inline void order_before_copies() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

// How many runs one copy brings: 2 to 4 KB of them.
__device__ constexpr int copy_runs(PackedFormat format) {
  return format == PackedFormat::bf16 ? 1 : 2;
}

// By one lane: queues the copy of a strip's next runs. Two arrivals at `full`, and the bytes,
// complete it. keep: another block will read the same weights soon.
__device__ inline void queue_copy(const StreamedWeight& weight, int column_tiles, int64_t strip,
                                  int run, bool keep, std::byte* slot, float2* scales,
                                  sm90::Barrier* full) {
  const int tiles = min(copy_runs(weight.format) * run_tiles, column_tiles - run * run_tiles);
  const auto bytes_of_tile = static_cast<int>(tile_bytes(weight.format));
  const auto bytes = static_cast<uint32_t>(tiles * bytes_of_tile);
  const std::byte* from = weight.tiles + (strip * column_tiles + run * run_tiles) * bytes_of_tile;
  sm90::arrive_expecting(full, bytes);
  if (keep)
    sm90::bulk_copy(slot, from, bytes, full);
  else
    sm90::bulk_copy_once(slot, from, bytes, full);
  if (weight.format == PackedFormat::f8) {
    const int strip_runs = (column_tiles + run_tiles - 1) / run_tiles;
    const float* scale = weight.scales + 2 * (strip * strip_runs + run);
    sm90::copy_eight(scales, scale);
    if (tiles > run_tiles) sm90::copy_eight(scales + 1, scale + 2);
  }
  arrive_behind_copies(full);
}

}  // namespace qnext::ops::cuda
