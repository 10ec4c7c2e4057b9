// What a block of the answer form has, and which rows, keys and columns it serves:
// decode_attention_sm90.cu tells the whole.
#pragma once

#include <algorithm>

#include "ops/attention/decode_merge_sm90.cuh"
#include "ops/attention/paged_sm90.cuh"

namespace qnext::ops::cuda {

constexpr int unit_warps = 4;  // that share out the units of a piece
constexpr int widest_head = 256;
constexpr int page_tokens = static_cast<int>(page_positions);
// Of an SM: covers the latency of 34 GB/s.
constexpr int ring_bytes = 192 << 10;

// What a block has. tiles: n8 tiles of columns a warp; fixed_dim: head_dim, 0: any up to 256;
// clustered: for the first pieces only, which are short.
template <KvFormat format, int tiles, int column_warps, int fixed_dim, bool clustered>
struct AnswerLayout {
  static constexpr int threads = unit_warps * column_warps * warp_lanes;
  // On an SM. A third one, where registers allow it, hides the start and end of short pieces; in
  // long ones its share of the rings is worth more.
  static constexpr int blocks = column_warps > 1                                  ? 1
                                : clustered&& format == KvFormat::f8&& tiles == 1 ? 3
                                                                                  : 2;
  // Positions of a unit, in sub-units of an mma's 16. Two of them share the steps of a softmax and
  // keep more products in flight, which f8 needs.
  static constexpr int subs = format == KvFormat::f8 ? 2 : 1;
  static constexpr int unit = 16 * subs;
  static constexpr int columns = 8 * tiles * column_warps;
  static constexpr int width = fixed_dim == 0 ? widest_head : fixed_dim;
  static constexpr int steps = width / 16;
  static constexpr int merge_stride = width + 4;  // floats; a warp's 8 rows x 4 columns: 2-way
  static constexpr int result_bytes = unit_warps * columns * merge_stride * 4;
  static constexpr int slot_bytes = unit * width * element_bytes(format);  // keys or values
  // With twice the warps, the block has the SM to itself: the results need as much.
  static constexpr int ring_limit = column_warps == 1 ? ring_bytes / blocks : result_bytes;
  static constexpr int slots = std::min(ring_limit / unit_warps / slot_bytes, 16);
  static constexpr int ring = slots * slot_bytes;
  static constexpr int data_bytes = std::max(unit_warps * ring + 256, result_bytes);
  // In registers for one tile, else [columns / 8][steps][32 lanes][8].
  static constexpr int query_bytes = tiles == 1 ? 0 : columns / 8 * steps * warp_lanes * 8;
  static constexpr int shared_bytes =
      128 + data_bytes + query_bytes + (unit_warps + 1) * columns * 8 + unit_warps * slots * 8 * 2;
};

// Which rows, keys and columns a block serves: column c is row c / group, query head c % group.
struct Work {
  SequenceRows sequence;
  int last;  // position of the sequence's last row
  int piece;
  int begin, end;  // positions
  int group;       // query heads a kv head
  int kv_head;
  int first_column;
  int columns;  // of the sequence
  int page;     // lane l: the piece's page l

  // The longest pieces first. one_group: of columns; it and `clustered` are known when compiling,
  // and nothing is divided then.
  __device__ Work(const Answer& a, bool clustered, bool one_group, int block_columns)
      : sequence(a.batch.sequence[blockIdx.z]),
        last(sequence.first_position + sequence.rows - 1),
        piece(static_cast<int>(clustered ? blockIdx.x : gridDim.x - 1 - blockIdx.x)),
        begin(clustered ? short_piece(last + 1) * piece
                        : static_cast<int>(Pieces(last + 1).begin(piece))),
        end(min(clustered ? begin + short_piece(last + 1)
                          : static_cast<int>(Pieces(last + 1).begin(piece + 1)),
                last + 1)),
        group(a.group),
        kv_head(static_cast<int>(one_group ? blockIdx.y : blockIdx.y / a.column_groups)),
        first_column(one_group ? 0
                               : static_cast<int>(blockIdx.y) % a.column_groups * block_columns),
        columns(sequence.rows * group) {
    static_assert(most_piece / page_tokens <= warp_lanes);
    const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
    page = begin + lane * page_tokens < end
               ? a.batch.pages[sequence.first_page + begin / page_tokens + lane]
               : 0;
  }
  __device__ int64_t row(int column) const {
    return sequence.first_row + (first_column + column) / group;
  }
  __device__ int head(int column) const {
    return kv_head * group + (first_column + column) % group;
  }
};

}  // namespace qnext::ops::cuda
