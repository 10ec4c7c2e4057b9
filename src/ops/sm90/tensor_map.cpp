#include "ops/sm90/tensor_map.h"

#include "base/cuda_error.h"

namespace qnext::ops::sm90 {

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found through the runtime: nothing links against the driver.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                              cudaEnableDefault, &found),
             "finding cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess) fail_cuda("the driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<Encode>(function);
}

CUtensorMap map_rows(const void* data, CUtensorMapDataType type, CUtensorMapSwizzle swizzle,
                     int64_t rows, int64_t columns, int64_t stride_bytes, int box_rows) {
  static const Encode encode = find_encode();
  CUtensorMap map{};
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride_bytes)};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      encode(&map, type, 2, const_cast<void*>(data), sizes, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) fail_cuda("cuTensorMapEncodeTiled refused a matrix of rows");
  return map;
}

}  // namespace

CUtensorMap map_bf16_rows(const void* data, int64_t rows, int64_t columns, int64_t stride,
                          int box_rows) {
  return map_rows(data, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CU_TENSOR_MAP_SWIZZLE_128B, rows, columns,
                  stride * 2, box_rows);
}

CUtensorMap map_f8_rows(const void* data, int64_t rows, int64_t columns, int64_t stride,
                        int box_rows) {
  return map_rows(data, CU_TENSOR_MAP_DATA_TYPE_UINT8, CU_TENSOR_MAP_SWIZZLE_64B, rows, columns,
                  stride, box_rows);
}

CUtensorMap map_tiles(const void* data, int64_t tile_bytes, int64_t column_tiles, int64_t strips,
                      int box_strips) {
  static const Encode encode = find_encode();
  CUtensorMap map{};
  const int64_t parts = tile_parts(tile_bytes), part_bytes = tile_bytes / parts;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(part_bytes / 4),
                               static_cast<cuuint64_t>(column_tiles * parts),
                               static_cast<cuuint64_t>(strips)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(part_bytes),
                                 static_cast<cuuint64_t>(column_tiles * tile_bytes)};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(part_bytes / 4),
                             static_cast<cuuint32_t>(parts), static_cast<cuuint32_t>(box_strips)};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT32, 3, const_cast<void*>(data), sizes, strides, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) fail_cuda("cuTensorMapEncodeTiled refused a packed matrix");
  return map;
}

}  // namespace qnext::ops::sm90
