#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "ops/matmul/layout.h"
#include "ops/matmul/matmul.h"
#include "tensor/blocks.h"

namespace qnext::ops {

namespace {

constexpr int64_t scale_block = 128;  // f8_e4m3 scales: one for 128 x 128 weights

int bits_of(DType format) {
  return format == DType::q4_0 ? 4 : 8;
}

// Columns [begin, begin + count) of one row of an unpacked matrix.
void widen_row(const WeightMatrix& source, int64_t row, int64_t begin, int64_t count, float* out) {
  const size_t offset =
      dtype_bytes(source.dtype, static_cast<size_t>(row * source.columns + begin));
  convert_to_float(source.dtype, static_cast<const std::byte*>(source.data) + offset, out,
                   static_cast<size_t>(count));
  if (source.dtype != DType::f8_e4m3) return;
  const int64_t runs = (source.columns + scale_block - 1) / scale_block;
  for (int64_t k = 0; k < count; ++k)
    out[k] *= source.block_scales[row / scale_block * runs + (begin + k) / scale_block];
}

// One published block into lane `lane` of its panel.
template <typename Block>
void place(const Block& block, int bits, int64_t b, int64_t lane, std::byte* panel) {
  std::memcpy(panel + layout::scales_at(bits, b) + 2 * lane, &block.d, 2);
  std::byte* quants = panel + layout::quants_at(bits, b);
  for (size_t i = 0; i < sizeof block.qs; ++i) {
    const int offset = bits == 8 ? 128 : 0;
    quants[i / 4 * 4 * layout::panel_rows + static_cast<size_t>(lane) * 4 + i % 4] =
        static_cast<std::byte>(block.qs[i] + offset);
  }
}

}  // namespace

bool can_pack(DType format, int64_t columns) {
  return is_block_quantized(format) && columns % layout::block == 0;
}

size_t packed_bytes(DType format, int64_t rows, int64_t columns) {
  const int64_t panels = (rows + layout::panel_rows - 1) / layout::panel_rows;
  return static_cast<size_t>(panels * layout::panel_bytes(bits_of(format), columns));
}

void pack_weights(const WeightMatrix& source, DType format, void* packed) {
  QNEXT_CHECK(can_pack(format, source.columns), "{} columns as {}", source.columns,
              dtype_name(format));
  const int bits = bits_of(format);
  std::memset(packed, 0, packed_bytes(format, source.rows, source.columns));
  for (int64_t row = 0; row < source.rows; ++row) {
    std::byte* panel = static_cast<std::byte*>(packed) +
                       row / layout::panel_rows * layout::panel_bytes(bits, source.columns);
    for (int64_t b = 0; b < source.columns / layout::block; ++b) {
      float values[layout::block];
      widen_row(source, row, b * layout::block, layout::block, values);
      if (format == DType::q8_0) {
        BlockQ8_0 block;
        encode(values, block);
        place(block, bits, b, row % layout::panel_rows, panel);
      } else {
        BlockQ4_0 block;
        encode(values, block);
        place(block, bits, b, row % layout::panel_rows, panel);
      }
    }
  }
}

void unpack_row(const WeightMatrix& weight, int64_t row, float* out) {
  if (!is_block_quantized(weight.dtype)) return widen_row(weight, row, 0, weight.columns, out);
  const int bits = bits_of(weight.dtype);
  const auto* panel = static_cast<const uint8_t*>(weight.data) +
                      row / layout::panel_rows * layout::panel_bytes(bits, weight.columns);
  const int64_t lane = row % layout::panel_rows;
  for (int64_t b = 0; b < weight.columns / layout::block; ++b, out += layout::block) {
    uint16_t scale;
    std::memcpy(&scale, panel + layout::scales_at(bits, b) + 2 * lane, 2);
    const float d = f16_to_float(scale);
    const uint8_t* quants = panel + layout::quants_at(bits, b);
    for (int64_t i = 0; i < layout::block * bits / 8; ++i) {
      const int byte = quants[i / 4 * 4 * layout::panel_rows + lane * 4 + i % 4];
      if (bits == 8) {
        out[i] = d * static_cast<float>(byte - 128);
      } else {
        out[i] = d * static_cast<float>((byte & 15) - 8);
        out[i + layout::block / 2] = d * static_cast<float>((byte >> 4) - 8);
      }
    }
  }
}

}  // namespace qnext::ops
