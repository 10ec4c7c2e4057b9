// Sizes and addresses that are multiples of something.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qnext::emulator {

constexpr size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// The first aligned byte; `memory` has at least alignment - 1 bytes to spare.
inline std::byte* first_aligned(std::byte* memory, size_t alignment) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  return memory + (round_up(address, alignment) - address);
}

}  // namespace qnext::emulator
