// Portable kernels: plain loops that say what the vector ones must give. For q8_0 and q4_0 bit for
// bit; for the float types the order of a sum is the instruction set's own.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "ops/matmul/kernels.h"
#include "ops/matmul/layout.h"
#include "tensor/dtype.h"

namespace qnext::ops::scalar {

namespace {

void store(const MatmulTile& tile, int64_t row, int64_t n, float sum) {
  float& y = tile.y[row][n - tile.begin];
  y = tile.accumulate ? y + sum : sum;
}

template <typename Stored>
Stored load(const MatmulTile& tile, int64_t index) {
  Stored value;
  std::memcpy(&value, static_cast<const std::byte*>(tile.weights) + index * int64_t{sizeof value},
              sizeof value);
  return value;
}

// widen(stored) -> float, exactly.
template <typename Stored, typename Widen>
void multiply_float(const MatmulTile& tile, Widen widen) {
  for (int64_t n = tile.begin; n < tile.end; ++n)
    for (int64_t row = 0; row < tile.rows; ++row) {
      const auto* x = static_cast<const float*>(tile.x[row]);
      float sum = 0;
      for (int64_t k = 0; k < tile.columns; ++k)
        sum = std::fma(widen(load<Stored>(tile, n * tile.columns + k)), x[k], sum);
      store(tile, row, n, sum);
    }
}

// The unsigned quants of panel row `lane` in one block.
template <int bits>
void unpack(const uint8_t* quants, int64_t lane, int32_t* out) {
  for (int64_t i = 0; i < layout::quant_bytes(bits) / layout::panel_rows; ++i) {
    const uint8_t byte = quants[i / 4 * 4 * layout::panel_rows + lane * 4 + i % 4];
    if constexpr (bits == 8) {
      out[i] = byte;
    } else {
      out[i] = byte & 15;
      out[i + layout::block / 2] = byte >> 4;
    }
  }
}

template <int bits>
void multiply_quantized(const MatmulTile& tile) {
  const int64_t blocks = tile.columns / layout::block;
  for (int64_t n = tile.begin; n < tile.end; ++n) {
    const auto* panel = static_cast<const uint8_t*>(tile.weights) +
                        n / layout::panel_rows * layout::panel_bytes(bits, tile.columns);
    const int64_t lane = n % layout::panel_rows;
    for (int64_t row = 0; row < tile.rows; ++row) {
      const auto* x = static_cast<const int8_t*>(tile.x[row]);
      const auto* x_scales = reinterpret_cast<const float*>(x + tile.columns);
      const auto* x_sums = reinterpret_cast<const int32_t*>(x_scales + blocks);
      float sum = 0;
      for (int64_t b = 0; b < blocks; ++b) {
        int32_t weights[layout::block];
        unpack<bits>(panel + layout::quants_at(bits, b), lane, weights);
        int32_t dot = bits == 4 ? x_sums[b] : 16 * x_sums[b];
        for (int64_t i = 0; i < layout::block; ++i) dot += weights[i] * x[b * layout::block + i];
        uint16_t scale;
        std::memcpy(&scale, panel + layout::scales_at(bits, b) + 2 * lane, 2);
        sum = std::fma(static_cast<float>(dot), f16_to_float(scale) * x_scales[b], sum);
      }
      store(tile, row, n, sum);
    }
  }
}

}  // namespace

void multiply_f32(const MatmulTile& tile) {
  multiply_float<float>(tile, [](float value) { return value; });
}
void multiply_f16(const MatmulTile& tile) {
  multiply_float<uint16_t>(tile, f16_to_float);
}
void multiply_bf16(const MatmulTile& tile) {
  multiply_float<uint16_t>(tile, bf16_to_float);
}

void multiply_f8_e4m3(const MatmulTile& tile) {
  constexpr int64_t run = 128;
  const int64_t runs = (tile.columns + run - 1) / run;
  for (int64_t n = tile.begin; n < tile.end; ++n)
    for (int64_t row = 0; row < tile.rows; ++row) {
      const auto* x = static_cast<const float*>(tile.x[row]);
      float sum = 0;
      for (int64_t r = 0; r < runs; ++r) {
        float part = 0;
        for (int64_t k = r * run; k < std::min(tile.columns, (r + 1) * run); ++k)
          part = std::fma(f8_e4m3_to_float(load<uint8_t>(tile, n * tile.columns + k)), x[k], part);
        sum = std::fma(part, tile.block_scales[n / run * runs + r], sum);
      }
      store(tile, row, n, sum);
    }
}

void multiply_q8_0(const MatmulTile& tile) {
  multiply_quantized<8>(tile);
}
void multiply_q4_0(const MatmulTile& tile) {
  multiply_quantized<4>(tile);
}

void quantize(const float* x, int64_t blocks, int8_t* quants, float* scales, int32_t* sums) {
  for (int64_t b = 0; b < blocks; ++b, x += layout::block, quants += layout::block) {
    // As integers, because NaN then counts as the largest.
    uint32_t largest_bits = 0;
    for (int64_t i = 0; i < layout::block; ++i)
      largest_bits = std::max(largest_bits, std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFF);
    const float largest = std::bit_cast<float>(largest_bits);
    sums[b] = 0;
    if (!(largest >= layout::smallest_magnitude && std::isfinite(largest))) {
      std::memset(quants, 0, layout::block);
      scales[b] = std::isfinite(largest) ? 0.0f : std::bit_cast<float>(0x7FC00000u);
      continue;
    }
    scales[b] = largest / 127.0f;
    const float inverse = 127.0f / largest;
    for (int64_t i = 0; i < layout::block; ++i) {
      quants[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
      sums[b] -= 8 * quants[i];
    }
  }
}

}  // namespace qnext::ops::scalar
