// Blocks of any block type, for tests.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace qnext {

// Any bits but in the factors, which make the largest value 0.1: of the size of weights. The second
// factor is three quarters of the first, so that a mistake cannot swap them unseen.
inline std::string random_blocks(DType dtype, size_t count, std::mt19937& random) {
  const BlockLayout& layout = block_layout(dtype);
  std::string out(dtype_bytes(dtype, count), '\0');
  std::vector<float> values(layout.values);
  for (size_t at = 0; at < out.size(); at += layout.bytes) {
    char* block = out.data() + at;
    for (size_t i = 0; i < layout.bytes; ++i) block[i] = static_cast<char>(random());
    const auto set_factors = [&](float factor) {
      for (const int place : layout.factors) {
        if (place < 0) continue;
        const uint16_t bits = float_to_f16(place == layout.factors[0] ? factor : 0.75f * factor);
        std::memcpy(block + place, &bits, sizeof bits);
      }
    };
    set_factors(1);
    convert_to_float(dtype, block, values.data(), values.size());
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::abs(value));
    set_factors(largest > 0 ? 0.1f / largest : 0.0f);
  }
  return out;
}

}  // namespace qnext
