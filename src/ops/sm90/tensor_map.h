// Tensor maps: how the copy engine finds a box of a matrix in memory.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace qnext::ops::sm90 {

// Rows of bf16, copied as boxes of 64 columns x box_rows (<= 256) rows in the 128-byte swizzle
// (sm90/wgmma.cuh); what lies outside of [rows, columns] comes as zeros. `data` 16-byte aligned,
// stride (in values) a multiple of 8. A kernel takes the map as a __grid_constant__ parameter.
CUtensorMap map_bf16_rows(const void* data, int64_t rows, int64_t columns, int64_t stride,
                          int box_rows);
// The same of e4m3, in the 64-byte swizzle; stride a multiple of 16.
CUtensorMap map_f8_rows(const void* data, int64_t rows, int64_t columns, int64_t stride,
                        int box_rows);

// Tiles of a packed matrix (ops/matmul/packed_matrix_cuda.h), [strips][column_tiles][tile_bytes],
// copied as boxes of one column tile of box_strips strips: coordinates 0, column tile * tile_parts,
// strip. Strips behind the last come as zeros.
constexpr int64_t tile_parts(int64_t tile_bytes) {
  return tile_bytes > 1024 ? tile_bytes / 1024 : 1;
}
CUtensorMap map_tiles(const void* data, int64_t tile_bytes, int64_t column_tiles, int64_t strips,
                      int box_strips);

}  // namespace qnext::ops::sm90
