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

// The first value of the first block with a factor whose exponent is all ones.
std::optional<size_t> first_damaged_block(const BlockLayout& layout, const void* data,
                                          size_t count) {
  const auto* block = static_cast<const std::byte*>(data);
  for (size_t first = 0; first < count; first += layout.values, block += layout.bytes) {
    for (const int factor : layout.factors) {
      if (factor < 0) break;
      uint16_t bits;
      std::memcpy(&bits, block + factor, sizeof bits);
      if ((bits & 0x7C00) == 0x7C00) return first;
    }
  }
  return std::nullopt;
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
      return first_damaged_block(block_layout(dtype), data, count);
  }
}

void check_finite(const StoredTensor& tensor) {
  const auto count = static_cast<size_t>(tensor.elements());
  if (tensor.runs.empty()) return check_finite(tensor, tensor.data, 0, count);
  std::vector<std::byte> scratch;
  check_finite(tensor, rows_of(tensor, 0, tensor.shape.front(), scratch), 0, count);
}

void check_finite(const StoredTensor& tensor, size_t first, size_t count) {
  check_finite(tensor, tensor.data + dtype_bytes(tensor.dtype, first), first, count);
}

void check_finite(const StoredTensor& tensor, const std::byte* values, size_t first, size_t count) {
  if (const auto index = first_non_finite(tensor.dtype, values, count))
    fail("tensor {}: value {} of {} is not a finite number; the checkpoint is damaged",
         printable(tensor.name), first + *index, tensor.elements());
}

}  // namespace qnext
