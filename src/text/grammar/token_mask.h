// A set of tokens, as a bit for each of the vocabulary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qnext::grammar {

// Bit t % 32 of word t / 32: token t may come.
using TokenMask = std::vector<uint32_t>;

inline void set_bit(TokenMask& mask, int32_t token) {
  mask[static_cast<size_t>(token) / 32] |= uint32_t{1} << (token % 32);
}

inline void clear_bit(TokenMask& mask, int32_t token) {
  mask[static_cast<size_t>(token) / 32] &= ~(uint32_t{1} << (token % 32));
}

inline bool has_bit(const TokenMask& mask, int32_t token) {
  return (mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1) != 0;
}

}  // namespace qnext::grammar
