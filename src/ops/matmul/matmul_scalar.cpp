// Portable kernels: plain loops that say what the vector ones must give. For types in blocks bit
// for bit; for the float types the order of a sum is the instruction set's own.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "ops/matmul/kernels.h"
#include "ops/matmul/panel_blocks.h"
#include "tensor/blocks.h"

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

void multiply_blocks(const MatmulTile& tile, DType dtype) {
  const layout::Format& format = panel_format(dtype);
  const int64_t blocks = tile.columns / format.columns;
  std::vector<BlockParts> weights(static_cast<size_t>(blocks));
  std::vector<std::byte> block(block_layout(dtype).bytes);
  for (int64_t n = tile.begin; n < tile.end; ++n) {
    const auto* panel = static_cast<const uint8_t*>(tile.weights) +
                        n / layout::panel_rows * layout::panel_bytes(format, tile.columns);
    for (int64_t b = 0; b < blocks; ++b) {
      gather_block(format, panel, b, n % layout::panel_rows, block.data());
      split_block(dtype, block.data(), weights[static_cast<size_t>(b)]);
    }
    for (int64_t row = 0; row < tile.rows; ++row) {
      const auto* x = static_cast<const layout::ActivationBlock*>(tile.x[row]);
      float sum = 0;
      for (const BlockParts& parts : weights) {
        for (int64_t first = 0; first < format.columns; first += parts.run) {
          const layout::ActivationBlock& inputs = x[first / layout::block];
          const int8_t* quants = inputs.quants + first % layout::block;
          int32_t dot = 0, x_sum = 0;
          for (int i = 0; i < parts.run; ++i) {
            dot += parts.quants[first + i] * quants[i];
            x_sum += quants[i];
          }
          const int64_t run = first / parts.run;
          sum = std::fma(static_cast<float>(dot), parts.scales[run] * inputs.scale, sum);
          if (parts.has_minimums)
            sum = std::fma(parts.minimums[run], inputs.scale * static_cast<float>(x_sum), sum);
        }
        x += format.columns / layout::block;
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
  multiply_blocks(tile, DType::q8_0);
}
void multiply_q4_0(const MatmulTile& tile) {
  multiply_blocks(tile, DType::q4_0);
}
void multiply_q4_1(const MatmulTile& tile) {
  multiply_blocks(tile, DType::q4_1);
}
void multiply_q5_0(const MatmulTile& tile) {
  multiply_blocks(tile, DType::q5_0);
}
void multiply_q5_1(const MatmulTile& tile) {
  multiply_blocks(tile, DType::q5_1);
}
void multiply_iq4_nl(const MatmulTile& tile) {
  multiply_blocks(tile, DType::iq4_nl);
}
void multiply_q2_k(const MatmulTile& tile) {
  multiply_blocks(tile, DType::q2_k);
}
void multiply_q3_k(const MatmulTile& tile) {
  multiply_blocks(tile, DType::q3_k);
}
void multiply_q4_k(const MatmulTile& tile) {
  multiply_blocks(tile, DType::q4_k);
}
void multiply_q5_k(const MatmulTile& tile) {
  multiply_blocks(tile, DType::q5_k);
}
void multiply_q6_k(const MatmulTile& tile) {
  multiply_blocks(tile, DType::q6_k);
}
void multiply_iq4_xs(const MatmulTile& tile) {
  multiply_blocks(tile, DType::iq4_xs);
}

void quantize(const float* x, int64_t blocks, layout::ActivationBlock* out) {
  for (; blocks > 0; --blocks, x += layout::block, ++out) {
    // As integers, because NaN then counts as the largest.
    uint32_t largest_bits = 0;
    for (int64_t i = 0; i < layout::block; ++i)
      largest_bits = std::max(largest_bits, std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFF);
    const float largest = std::bit_cast<float>(largest_bits);
    *out = {};
    if (!(largest >= layout::smallest_magnitude && std::isfinite(largest))) {
      out->scale = std::isfinite(largest) ? 0.0f : std::bit_cast<float>(0x7FC00000u);
      continue;
    }
    out->scale = largest / 127.0f;
    const float inverse = 127.0f / largest;
    int32_t sums[2] = {0, 0};
    for (int64_t i = 0; i < layout::block; ++i) {
      out->quants[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
      sums[i / layout::half_run] += out->quants[i];
    }
    for (int half = 0; half < 2; ++half) out->half_sums[half] = static_cast<int16_t>(sums[half]);
    out->sum = -8 * (sums[0] + sums[1]);
    out->offset = out->scale * static_cast<float>(sums[0] + sums[1]);
  }
}

}  // namespace qnext::ops::scalar
