// What a launch of stream_row_sm90.cu does, and the pieces of weights that a block of it copies:
// listed once, before the wait.
#pragma once

#include "ops/matmul/stream_matmul.cuh"
#include "ops/matmul/stream_rows.cuh"

namespace qnext::ops::cuda::row_products {

constexpr int most_warps = 16;  // 64 registers each, with two blocks an SM
constexpr int least_warps = norm_runs;
constexpr int most_piece_runs = most_warps;
constexpr int most_strips = 8;    // of a block
constexpr int most_job_rows = 4;  // a thread an output of a row: 4 * 16 * most_strips threads
constexpr int most_pieces = 32;
constexpr int most_slots = 8;
constexpr int strip_rows = static_cast<int>(tile_rows);

__host__ __device__ constexpr int run_bytes(PackedFormat format) {
  return run_tiles * static_cast<int>(tile_bytes(format));
}

struct RowJob {
  StreamInput input;
  StreamedWeight product[most_stream_products];
  int products;
  int strips;  // of all products
  // So many of the last strips have more bytes than the others: their place in the blocks' order,
  // the free places not counted, which are as many or none.
  int heavy, heavy_place, free, free_place;
  int rows, columns, column_tiles, runs;
  int x_stride;  // bytes of a row in shared memory
  int slots, slot_bytes, bf16_piece_runs;
  int strip_pieces, bf16_strip_pieces;  // pieces of a strip
  // Where things lie in shared memory, behind the ring.
  int x;            // bf16 [rows][column_tiles][64], in the order of B fragments
  int half_x;       // one row's in f16, for weights in f8
  int sums;         // float [strips of a block][runs][RunSums::size]
  int norm;         // float [rows][norm_floats]
  int scales;       // float2 [slots][most_piece_runs]
  int pieces;       // Piece [most_pieces]
  int counts;       // PieceCounts
  int full, empty;  // Barrier [slots]
  int bytes;
};

template <typename T>
__device__ T* shared_at(int offset) {
  extern __shared__ __align__(128) std::byte memory[];
  return reinterpret_cast<T*>(memory + offset);
}

__device__ inline const StreamedWeight& weight_of(const RowJob& job, int strip) {
  return job.product[product_of_strip(job, strip)];
}

// The strip at a place of the order in which blocks take them by turns, or none. Heavy ones come
// where a block takes one strip less than others do, and nothing in the round before.
constexpr int no_strip = -1;
__device__ inline int strip_at(const RowJob& job, int place) {
  if (place >= job.strips + job.free) return no_strip;
  if (place >= job.free_place + job.free)
    place -= job.free;
  else if (place >= job.free_place)
    return no_strip;
  const int behind = place - job.heavy_place;
  if (behind < 0) return place;
  return behind < job.heavy ? job.strips - job.heavy + behind : place - job.heavy;
}

// What fills a slot of the ring: up to most_piece_runs runs of a strip and their scales. Listed
// once, so that warps have nothing to work out between two products.
struct alignas(16) Piece {
  const std::byte* data;
  const float* scales;  // null: none
  uint32_t bytes;
  int16_t first, end;  // runs
  int16_t order;       // of the strip in the block
  bool is_bf16;

  __device__ uint32_t scale_bytes() const {
    return scales ? static_cast<uint32_t>((end - first) * 2 * static_cast<int>(sizeof(float))) : 0;
  }
};

// How many pieces a block has, and how many of them, from the first on, are alike: whole ones of
// the main format, a run for every warp.
struct PieceCounts {
  int all, alike;
};

// A warp lists the block's pieces, a lane a strip; all lanes know their numbers.
__device__ inline PieceCounts list_pieces(const RowJob& job, Piece* pieces, int lane) {
  const int place = static_cast<int>(blockIdx.x) + lane * static_cast<int>(gridDim.x);
  const int found = lane < most_strips ? strip_at(job, place) : no_strip;
  const bool valid = found != no_strip;
  const int strip = valid ? found : 0;
  const StreamedWeight& weight = weight_of(job, strip);
  const bool is_bf16 = weight.format == PackedFormat::bf16;
  const int each = is_bf16 ? job.bf16_piece_runs : most_piece_runs;
  const int count = !valid ? 0 : is_bf16 ? job.bf16_strip_pieces : job.strip_pieces;
  int before = count;  // of this strip and those before it
#pragma unroll
  for (int distance = 1; distance <= most_strips; distance *= 2) {
    const int others = __shfl_up_sync(whole_warp, before, distance);
    if (lane >= distance) before += others;
  }
  before -= count;
  const int own = strip - weight.first_strip;
  const auto bytes_of_tile = static_cast<int>(tile_bytes(weight.format));
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    const int first = i * each, end = min(first + each, job.runs);
    const int tiles = min(end * run_tiles, job.column_tiles) - first * run_tiles;
    Piece& piece = pieces[before + i];
    piece.data =
        weight.tiles + (int64_t{own} * job.column_tiles + first * run_tiles) * bytes_of_tile;
    piece.scales = weight.format == PackedFormat::f8
                       ? weight.scales + 2 * (int64_t{own} * job.runs + first)
                       : nullptr;
    piece.bytes = static_cast<uint32_t>(tiles * bytes_of_tile);
    piece.first = static_cast<int16_t>(first);
    piece.end = static_cast<int16_t>(end);
    piece.order = static_cast<int16_t>(lane);
    piece.is_bf16 = is_bf16;
  }
  __syncwarp();
  const bool alike =
      count > 0 && !is_bf16 && job.runs % most_piece_runs == 0 && job.column_tiles % run_tiles == 0;
  const int first_other = __ffs(static_cast<int>(~__ballot_sync(whole_warp, alike))) - 1;
  return {__shfl_sync(whole_warp, before + count, most_strips - 1),
          __shfl_sync(whole_warp, before, first_other)};
}

// By one thread.
__device__ inline void issue(const RowJob& job, const Piece& piece, int slot) {
  sm90::Barrier* full = shared_at<sm90::Barrier>(job.full) + slot;
  sm90::arrive_expecting(full, piece.bytes + piece.scale_bytes());
  sm90::bulk_copy_once(shared_at<std::byte>(slot * job.slot_bytes), piece.data, piece.bytes, full);
  if (piece.scales)
    sm90::bulk_copy_once(shared_at<float2>(job.scales) + slot * most_piece_runs, piece.scales,
                         piece.scale_bytes(), full);
}

}  // namespace qnext::ops::cuda::row_products
