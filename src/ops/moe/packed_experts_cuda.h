// The experts of one layer, packed (ops/matmul/packed_matrix_cuda.h) one after another.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/matmul/packed_matrix_cuda.h"

namespace qnext::ops::cuda {

// A view; the memory belongs to whoever loaded it. Copied into kernels by value.
//
// An expert's gate (Placement::upper) and up (Placement::lower) share one matrix of gate_up_rows()
// rows: the lane that sums row i of gate (c0, c1 of its accumulator) sums row i of up (c2, c3) as
// well. All experts have the same width; a narrower one (the shared expert of some checkpoints) is
// padded with zero rows of gate and up and zero columns of down, which add nothing. The shared
// expert, if any, is the last. A dense SwiGLU layer is one expert.
struct PackedExperts {
  PackedFormat format = PackedFormat::bf16;
  int64_t experts = 0;  // all, the shared one included
  int64_t hidden = 0;
  int64_t width = 0;
  // [experts] matrices [gate_up_rows(), hidden], then [experts] matrices [hidden, width]; tiles
  // 128-byte aligned, scales (f8 only) 8-byte aligned.
  const std::byte* gate_up_tiles = nullptr;
  const float* gate_up_scales = nullptr;
  const std::byte* down_tiles = nullptr;
  const float* down_scales = nullptr;

  // Strips of 8 gate and 8 up rows.
  constexpr int64_t gate_up_rows() const { return (width + 7) / 8 * tile_rows; }

  constexpr PackedMatrix gate_up(int64_t expert) const {
    PackedMatrix matrix{format, gate_up_rows(), hidden, nullptr, nullptr};
    place(matrix, expert, gate_up_tiles, gate_up_scales);
    return matrix;
  }
  constexpr PackedMatrix down(int64_t expert) const {
    PackedMatrix matrix{format, hidden, width, nullptr, nullptr};
    place(matrix, expert, down_tiles, down_scales);
    return matrix;
  }

 private:
  static constexpr void place(PackedMatrix& matrix, int64_t expert, const std::byte* tiles,
                              const float* scales) {
    if (tiles) matrix.tiles = tiles + expert * matrix.bytes();
    if (scales) matrix.scales = scales + expert * matrix.scale_count();
  }
};

}  // namespace qnext::ops::cuda
