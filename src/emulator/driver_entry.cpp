// The driver's function that this project asks the runtime for: descriptors of tensor copies,
// checked by the rules that <cuda.h> states.
#include <cuda.h>

#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>

#include "emulator/runtime_state.h"
#include "emulator/tensor_map.h"

namespace qnext::emulator {
namespace {

static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap));

constexpr uint64_t stride_limit = uint64_t{1} << 40;
constexpr uint32_t largest_box = 256;

// 0: a type whose elements are no whole bytes.
uint8_t bytes_of(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
      return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return 8;
    default:
      return 0;
  }
}

// In bytes; -1 where this is not known here.
int swizzle_of(CUtensorMapSwizzle swizzle) {
  switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_NONE:
      return 0;
    case CU_TENSOR_MAP_SWIZZLE_32B:
      return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B:
      return 64;
    case CU_TENSOR_MAP_SWIZZLE_128B:
      return 128;
    default:
      return -1;
  }
}

bool valid(const TensorMap& map, const cuuint64_t* sizes, const cuuint64_t* strides) {
  if (map.base == 0 || map.base % 16 != 0) return false;
  for (size_t i = 0; i < map.rank; ++i) {
    if (sizes[i] == 0 || sizes[i] > std::numeric_limits<uint32_t>::max()) return false;
    if (map.box[i] == 0 || map.box[i] > largest_box) return false;
  }
  for (size_t i = 0; i + 1 < map.rank; ++i)
    if (strides[i] % 16 != 0 || strides[i] >= stride_limit) return false;
  // Else rows would overlap.
  if (map.rank > 1 && strides[0] < sizes[0] * map.element_bytes) return false;
  const uint32_t inner = map.box[0] * map.element_bytes;
  return inner % 16 == 0 && (map.swizzle_bytes == 0 || inner <= map.swizzle_bytes);
}

// The first has no meaning.
bool all_ones(const cuuint32_t* steps, uint32_t rank) {
  for (uint32_t i = 1; i < rank; ++i)
    if (steps[i] != 1) return false;
  return true;
}

CUresult encode(CUtensorMap* to, CUtensorMapDataType type, cuuint32_t rank, void* base,
                const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                const cuuint32_t* steps, CUtensorMapInterleave interleave,
                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                CUtensorMapFloatOOBfill fill) {
  if (!to || reinterpret_cast<uint64_t>(to) % 64 != 0 || rank == 0 || rank > 5 || !sizes || !box ||
      !steps || (rank > 1 && !strides) || promotion < CU_TENSOR_MAP_L2_PROMOTION_NONE ||
      promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B)
    return CUDA_ERROR_INVALID_VALUE;
  TensorMap map;
  map.rank = static_cast<uint8_t>(rank);
  map.element_bytes = bytes_of(type);
  if (map.element_bytes == 0 || swizzle_of(swizzle) < 0 || !all_ones(steps, rank) ||
      interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
    return CUDA_ERROR_NOT_SUPPORTED;
  map.swizzle_bytes = static_cast<uint8_t>(swizzle_of(swizzle));
  map.base = reinterpret_cast<uint64_t>(base);
  for (size_t i = 0; i < rank; ++i) {
    map.size[i] = static_cast<uint32_t>(sizes[i]);
    map.box[i] = box[i];
    if (i + 1 < rank) map.stride[i] = strides[i];
  }
  if (!valid(map, sizes, strides)) return CUDA_ERROR_INVALID_VALUE;
  std::memset(to, 0, sizeof *to);
  std::memcpy(to, &map, sizeof map);
  return CUDA_SUCCESS;
}

static_assert(std::is_same_v<decltype(&encode), decltype(&cuTensorMapEncodeTiled)>);

}  // namespace
}  // namespace qnext::emulator

using namespace qnext::emulator;

extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function,
                                                        unsigned version, unsigned long long flags,
                                                        cudaDriverEntryPointQueryResult* status) {
  return call([&] {
    if (!symbol || !function) return cudaErrorInvalidValue;
    *function = nullptr;
    if (flags != cudaEnableDefault) return cudaErrorNotSupported;
    const bool known = symbol == std::string_view("cuTensorMapEncodeTiled");
    const bool found = known && version >= 12000;
    if (found) *function = reinterpret_cast<void*>(&encode);
    if (!status) return found ? cudaSuccess : cudaErrorSymbolNotFound;
    *status = found   ? cudaDriverEntryPointSuccess
              : known ? cudaDriverEntryPointVersionNotSufficent
                      : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
  });
}
