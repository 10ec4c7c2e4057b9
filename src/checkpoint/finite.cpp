#include "checkpoint/finite.h"

#include <cstdint>
#include <cstring>

#include "base/error.h"

namespace qnext {

namespace {

// A value is NaN or infinite when all bits of `mask` are set (the exponent; for E4M3, which has no
// infinities, everything but the sign). Blocks of fixed length let the compiler use vectors.
template <typename Bits, Bits mask>
std::optional<size_t> first_with_all_bits(const void* data, size_t count) {
  constexpr size_t block = 512;
  const std::byte* bytes = static_cast<const std::byte*>(data);
  const auto find_in = [&](size_t begin, size_t end) -> std::optional<size_t> {
    for (size_t i = begin; i < end; ++i) {
      Bits bits;
      std::memcpy(&bits, bytes + i * sizeof(Bits), sizeof(Bits));
      if ((bits & mask) == mask) return i;
    }
    return std::nullopt;
  };
  size_t begin = 0;
  for (; begin + block <= count; begin += block) {
    Bits values[block];
    std::memcpy(values, bytes + begin * sizeof(Bits), sizeof values);
    Bits found = 0;
    for (size_t i = 0; i < block; ++i)
      found = static_cast<Bits>(found | ((values[i] & mask) == mask ? Bits(~Bits{0}) : Bits{0}));
    if (found) return find_in(begin, begin + block);
  }
  return find_in(begin, count);
}

}  // namespace

std::optional<size_t> first_non_finite(DType dtype, const void* data, size_t count) {
  switch (dtype) {
    case DType::f32:
      return first_with_all_bits<uint32_t, 0x7F800000>(data, count);
    case DType::f16:
      return first_with_all_bits<uint16_t, 0x7C00>(data, count);
    case DType::bf16:
      return first_with_all_bits<uint16_t, 0x7F80>(data, count);
    case DType::f8_e4m3:
      return first_with_all_bits<uint8_t, 0x7F>(data, count);
    default:
      return std::nullopt;
  }
}

void check_finite(const StoredTensor& tensor) {
  check_finite(tensor, 0, static_cast<size_t>(tensor.elements()));
}

void check_finite(const StoredTensor& tensor, size_t first, size_t count) {
  const std::byte* values = tensor.data + dtype_bytes(tensor.dtype, first);
  if (const auto index = first_non_finite(tensor.dtype, values, count))
    fail("tensor {}: value {} of {} is not a finite number; the checkpoint is damaged",
         printable(tensor.name), first + *index, tensor.elements());
}

}  // namespace qnext
