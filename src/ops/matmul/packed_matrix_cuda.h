// Weights as the tensor-core kernels read them: repacked once, at load.
//
// A matrix [rows, columns] = [outputs, inputs] is cut into tiles of 16 rows x 64 columns, padded
// with zeros to whole tiles, strips of 16 rows one after another, a strip's tiles in ascending
// columns. A tile holds the four A fragments of mma.m16n8k16 (or a warp's part of wgmma.m64nNk16)
// lane by lane, so that a warp reads a tile in 512-byte runs and one strip is one stream:
//
//   format    bytes a tile   a weight's value
//   bf16      2048           as is; f32 and f16 are rounded to it
//   f8        1024           e4m3 * scale (fp32) of its 8 rows x 128 columns (scales[])
//   q4        576            bf16(d * (q - 8)), 0 <= q <= 15, d (bf16) of its 1 row x 32 columns:
//                            q4_0 with its scale rounded to bf16; 4.5 bits a weight
//
// Lane l = 4 g + t of step s (16 columns from 16 s of the tile) owns the fragment
//   a[0]: row g, columns 2t, 2t+1    a[1]: row g + 8, the same columns
//   a[2]: row g, columns 2t+8, 2t+9  a[3]: row g + 8, those columns.
// packed_tile.cuh says how each format stores it and turns it into registers.
//
// Products of packed matrices: activations bf16, products exact, sums fp32. The f8 scale multiplies
// the fp32 sum over its 128 columns, so f8 is exact up to fp32 roundings.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ops/matmul/matmul.h"

namespace qnext::ops::cuda {

// bf16 values are passed as their bits.
using Bf16 = uint16_t;

constexpr int64_t tile_rows = 16;
constexpr int64_t tile_columns = 64;
constexpr int64_t scale_columns = 128;

enum class PackedFormat { bf16, f8, q4 };

__host__ __device__ constexpr int64_t tile_bytes(PackedFormat format) {
  return format == PackedFormat::bf16 ? 2048 : format == PackedFormat::f8 ? 1024 : 576;
}

// A view; the memory belongs to whoever loaded it. Copied into kernels by value.
struct PackedMatrix {
  PackedFormat format = PackedFormat::bf16;
  int64_t rows = 0;
  int64_t columns = 0;
  const std::byte* tiles = nullptr;  // 128-byte aligned
  // f8 only: [row_tiles][ceil(columns / 128)][2]: of rows 0-7 and of rows 8-15 of the tile.
  const float* scales = nullptr;

  __host__ __device__ constexpr int64_t row_tiles() const {
    return (rows + tile_rows - 1) / tile_rows;
  }
  __host__ __device__ constexpr int64_t column_tiles() const {
    return (columns + tile_columns - 1) / tile_columns;
  }
  __host__ __device__ constexpr int64_t strip_bytes() const {
    return column_tiles() * tile_bytes(format);
  }
  __host__ __device__ constexpr int64_t bytes() const { return row_tiles() * strip_bytes(); }
  __host__ __device__ constexpr int64_t strip_scales() const {
    return format == PackedFormat::f8 ? 2 * ((columns + scale_columns - 1) / scale_columns) : 0;
  }
  __host__ __device__ constexpr int64_t scale_count() const { return row_tiles() * strip_scales(); }
};

// Where row i of a source goes: `whole`: row i (the source starts at a multiple of 16 rows).
// `upper` and `lower`: rows 0-7 and rows 8-15 of tile i / 8. So gate_proj (upper) and up_proj
// (lower) of an expert share one matrix of twice the rows, and the thread that sums a gate value
// sums its up value as well.
enum class Placement { whole, upper, lower };

// Packs `source` (f32, f16, bf16, f8_e4m3; row-major, device pointers, aligned to their type) into
// `matrix` from strip first_strip on. Rows of the padding become zeros where the source's own
// strips have them; columns beyond source.columns are zeros up to matrix.columns. f8 keeps the
// codes and scales of an f8_e4m3 source; others it quantises by blocks of 128 x 128 of the source:
// scale = max|w| / 448, codes to nearest even. q4 quantises as tensor/blocks.h encodes q4_0, then
// rounds the scale to bf16. The two halves of a strip share words: pack them on one stream, in
// either order. matrix.tiles and matrix.scales are written although const: the loader owns them.
void pack(cudaStream_t stream, const WeightMatrix& source, Placement placement,
          const PackedMatrix& matrix, int64_t first_strip = 0);

// Fills all of `matrix` with a pseudorandom pattern of `seed`: values of about normal shape with
// standard deviation `deviation` (quantised as pack() would), padding zero.
void fill_random(cudaStream_t stream, const PackedMatrix& matrix, float deviation, uint64_t seed);

}  // namespace qnext::ops::cuda
