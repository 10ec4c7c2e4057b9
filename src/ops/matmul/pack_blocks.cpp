// Weights that are stored in blocks to panels: blocks of the panel's own format are moved, all
// others are widened and encoded.
#include "ops/matmul/pack_blocks.h"

#include <algorithm>
#include <cstring>

#include "ops/matmul/kernels.h"
#include "ops/matmul/panel_blocks.h"
#include "tensor/blocks.h"
#include "tensor/super_blocks.h"

namespace qnext::ops {

namespace {

// A q8_0 block that holds -128, encoded anew.
void make_fit(std::byte* bytes) {
  BlockQ8_0 block;
  std::memcpy(&block, bytes, sizeof block);
  if (std::ranges::find(block.qs, INT8_MIN) == std::end(block.qs)) return;
  float values[layout::block];
  decode(block, values);
  encode(values, block);
  std::memcpy(bytes, &block, sizeof block);
}

void move_panel(const std::byte* source, int64_t rows, int64_t columns, DType dtype,
                uint8_t* panel) {
  const layout::Format& format = panel_format(dtype);
  const size_t block_bytes = block_layout(dtype).bytes;
  std::memset(panel, 0, static_cast<size_t>(layout::panel_bytes(format, columns)));
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t b = 0; b < columns / format.columns; ++b, source += block_bytes) {
      if (dtype != DType::q8_0) {
        place_block(format, source, b, row, panel);
        continue;
      }
      std::byte block[sizeof(BlockQ8_0)];
      std::memcpy(block, source, sizeof block);
      make_fit(block);
      place_block(format, block, b, row, panel);
    }
}

// Some columns at a time, so that the widened values stay in the first-level cache: whole blocks of
// every type, and whole units of a panel.
constexpr int64_t slice = 256;
static_assert(slice % super_block_values == 0 && slice % (2 * block_values) == 0);

void widen_panel(const WeightMatrix& source, const std::byte* first_row, int64_t rows,
                 Encoded format, PackKernel pack_f32, uint8_t* panel) {
  const size_t row_bytes = dtype_bytes(source.dtype, static_cast<size_t>(source.columns));
  const layout::Format& lies = format == Encoded::q4_0 ? layout::q4_0 : layout::q8_0;
  float widened[layout::panel_rows * slice];
  for (int64_t first = 0; first < source.columns; first += slice) {
    const int64_t count = std::min(slice, source.columns - first);
    const std::byte* from = first_row + dtype_bytes(source.dtype, static_cast<size_t>(first));
    for (int64_t row = 0; row < rows; ++row)
      convert_to_float(source.dtype, from + static_cast<size_t>(row) * row_bytes,
                       widened + row * count, static_cast<size_t>(count));
    pack_f32({widened, nullptr, rows, count, format, panel + layout::panel_bytes(lies, first)});
  }
}

}  // namespace

void pack_blocks(const WeightMatrix& source, DType format, PackKernel pack_f32, void* packed) {
  const auto panel_bytes =
      static_cast<size_t>(layout::panel_bytes(panel_format(format), source.columns));
  const size_t row_bytes = dtype_bytes(source.dtype, static_cast<size_t>(source.columns));
  const auto* bytes = static_cast<const std::byte*>(source.data);
  auto* panel = static_cast<uint8_t*>(packed);
  for (int64_t row = 0; row < source.rows; row += layout::panel_rows, panel += panel_bytes) {
    const int64_t rows = std::min(layout::panel_rows, source.rows - row);
    const std::byte* first = bytes + static_cast<size_t>(row) * row_bytes;
    if (source.dtype == format)
      move_panel(first, rows, source.columns, format, panel);
    else
      widen_panel(source, first, rows, encoded(format), pack_f32, panel);
  }
}

}  // namespace qnext::ops
