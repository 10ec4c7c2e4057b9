// Weights that are stored in blocks to q4_0 and q8_0 panels: blocks of the panel's own format are
// moved, all others are widened and encoded.
#include "ops/matmul/pack_blocks.h"

#include <algorithm>
#include <cstring>

#include "ops/matmul/kernels.h"
#include "ops/matmul/layout.h"
#include "tensor/blocks.h"
#include "tensor/super_blocks.h"

namespace qnext::ops {

namespace {

// Four bytes of a row's block go where the lane has them. A q8_0 byte is stored with 128 added.
template <typename Block>
void place(const Block& block, int64_t b, int64_t lane, uint8_t* panel) {
  constexpr int bits = sizeof(Block::qs) == layout::block ? 8 : 4;
  constexpr uint32_t flip = bits == 8 ? 0x80808080 : 0;
  std::memcpy(panel + layout::scales_at(bits, b) + 2 * lane, &block.d, sizeof block.d);
  uint8_t* quants = panel + layout::quants_at(bits, b) + 4 * lane;
  for (size_t j = 0; j < sizeof block.qs / 4; ++j) {
    uint32_t dword;
    std::memcpy(&dword, block.qs + 4 * j, 4);
    dword ^= flip;
    std::memcpy(quants + 4 * layout::panel_rows * static_cast<int64_t>(j), &dword, 4);
  }
}

void make_fit(BlockQ8_0& block) {
  if (std::ranges::find(block.qs, INT8_MIN) == std::end(block.qs)) return;
  float values[layout::block];
  decode(block, values);
  encode(values, block);
}
void make_fit(BlockQ4_0&) {}

template <typename Block>
void move_panel(const std::byte* source, int64_t rows, int64_t columns, size_t panel_bytes,
                uint8_t* panel) {
  const int64_t blocks = columns / layout::block;
  std::memset(panel, 0, panel_bytes);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t b = 0; b < blocks; ++b, source += sizeof(Block)) {
      Block block;
      std::memcpy(&block, source, sizeof block);
      make_fit(block);
      place(block, b, row, panel);
    }
}

// Some columns at a time, so that the widened values stay in the first-level cache: whole blocks of
// every type, and whole units of a panel.
constexpr int64_t slice = 256;
static_assert(slice % super_block_values == 0 && slice % (2 * layout::block) == 0);

void widen_panel(const WeightMatrix& source, const std::byte* first_row, int64_t rows, int bits,
                 PackKernel pack_f32, uint8_t* panel) {
  const size_t row_bytes = dtype_bytes(source.dtype, static_cast<size_t>(source.columns));
  float widened[layout::panel_rows * slice];
  for (int64_t first = 0; first < source.columns; first += slice) {
    const int64_t count = std::min(slice, source.columns - first);
    const std::byte* from = first_row + dtype_bytes(source.dtype, static_cast<size_t>(first));
    for (int64_t row = 0; row < rows; ++row)
      convert_to_float(source.dtype, from + static_cast<size_t>(row) * row_bytes,
                       widened + row * count, static_cast<size_t>(count));
    pack_f32({widened, nullptr, rows, count, bits, panel + layout::panel_bytes(bits, first)});
  }
}

}  // namespace

void pack_blocks(const WeightMatrix& source, DType format, PackKernel pack_f32, void* packed) {
  const int bits = format == DType::q4_0 ? 4 : 8;
  const auto panel_bytes = static_cast<size_t>(layout::panel_bytes(bits, source.columns));
  const size_t row_bytes = dtype_bytes(source.dtype, static_cast<size_t>(source.columns));
  const auto* bytes = static_cast<const std::byte*>(source.data);
  auto* panel = static_cast<uint8_t*>(packed);
  for (int64_t row = 0; row < source.rows; row += layout::panel_rows, panel += panel_bytes) {
    const int64_t rows = std::min(layout::panel_rows, source.rows - row);
    const std::byte* first = bytes + static_cast<size_t>(row) * row_bytes;
    if (source.dtype != format)
      widen_panel(source, first, rows, bits, pack_f32, panel);
    else if (bits == 8)
      move_panel<BlockQ8_0>(first, rows, source.columns, panel_bytes, panel);
    else
      move_panel<BlockQ4_0>(first, rows, source.columns, panel_bytes, panel);
  }
}

}  // namespace qnext::ops
