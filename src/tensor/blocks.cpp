#include "tensor/blocks.h"

#include <algorithm>
#include <cmath>

#include "tensor/dtype.h"

namespace qnext {

void encode(const float* values, BlockQ8_0& block) {
  float largest = 0;
  for (int i = 0; i < block_values; ++i) largest = std::max(largest, std::abs(values[i]));
  const float d = largest / 127.0f;
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  block.d = float_to_f16(d);
  for (int i = 0; i < block_values; ++i)
    block.qs[i] = static_cast<int8_t>(std::round(values[i] * inverse));
}

void encode(const float* values, BlockQ4_0& block) {
  float extreme = 0;
  for (int i = 0; i < block_values; ++i)
    if (std::abs(values[i]) > std::abs(extreme)) extreme = values[i];
  const float d = extreme / -8.0f;
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  block.d = float_to_f16(d);
  const auto quantize = [&](float value) {
    return std::min(15, static_cast<int>(value * inverse + 8.5f));
  };
  for (int i = 0; i < block_values / 2; ++i)
    block.qs[i] = static_cast<uint8_t>(quantize(values[i]) |
                                       quantize(values[i + block_values / 2]) << 4);
}

void decode(const BlockQ8_0& block, float* values) {
  const float d = f16_to_float(block.d);
  for (int i = 0; i < block_values; ++i) values[i] = d * static_cast<float>(block.qs[i]);
}

void decode(const BlockQ4_0& block, float* values) {
  const float d = f16_to_float(block.d);
  for (int i = 0; i < block_values / 2; ++i) {
    values[i] = d * static_cast<float>((block.qs[i] & 15) - 8);
    values[i + block_values / 2] = d * static_cast<float>((block.qs[i] >> 4) - 8);
  }
}

}  // namespace qnext
