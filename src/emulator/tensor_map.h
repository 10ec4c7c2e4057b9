// What cuTensorMapEncodeTiled() writes into the 128 bytes of a CUtensorMap here, and what
// cp.async.bulk.tensor reads from it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace qnext::emulator {

struct TensorMap {
  static constexpr uint32_t mark = 0x716e7874;
  uint32_t magic = mark;
  uint8_t rank = 0;
  uint8_t element_bytes = 0;
  uint8_t swizzle_bytes = 0;  // 0, 32, 64 or 128
  uint8_t unused = 0;
  uint64_t base = 0;
  std::array<uint32_t, 5> size{};  // elements a dimension, innermost first
  std::array<uint32_t, 5> box{};
  std::array<uint64_t, 4> stride{};  // bytes, of dimensions 1 and up
};
static_assert(sizeof(TensorMap) <= 128 && std::is_trivially_copyable_v<TensorMap>);

}  // namespace qnext::emulator
