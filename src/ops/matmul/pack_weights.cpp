#include <algorithm>
#include <cstring>
#include <vector>

#include "base/cpu_features.h"
#include "base/error.h"
#include "ops/matmul/kernels.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/pack_blocks.h"
#include "ops/matmul/panel_blocks.h"
#include "tensor/encode_row.h"

namespace qnext::ops {

namespace {

constexpr int64_t scale_block = 128;  // f8_e4m3 scales: one for 128 x 128 weights

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

// Formats that pack kernels do not encode to: row by row, by a search for the best scales.
void encode_panels(const WeightMatrix& source, DType format, void* packed) {
  const layout::Format& lies = panel_format(format);
  const size_t block_bytes = block_layout(format).bytes;
  std::memset(packed, 0, packed_bytes(format, source.rows, source.columns));
  std::vector<float> values(static_cast<size_t>(source.columns));
  std::vector<std::byte> blocks(dtype_bytes(format, values.size()));
  for (int64_t row = 0; row < source.rows; ++row) {
    widen_row(source, row, 0, source.columns, values.data());
    encode_row(format, values.data(), nullptr, values.size(), blocks.data());
    auto* panel = static_cast<uint8_t*>(packed) +
                  row / layout::panel_rows * layout::panel_bytes(lies, source.columns);
    for (int64_t b = 0; b < source.columns / lies.columns; ++b)
      place_block(lies, blocks.data() + static_cast<size_t>(b) * block_bytes, b,
                  row % layout::panel_rows, panel);
  }
}

PackKernel pack_kernel(DType source) {
  switch (source) {
    case DType::f32:
      return IsaTable<PackKernel>{scalar::pack_f32, avx2::pack_f32}.choose();
    case DType::f16:
      return IsaTable<PackKernel>{scalar::pack_f16, avx2::pack_f16}.choose();
    case DType::bf16:
      return IsaTable<PackKernel>{scalar::pack_bf16, avx2::pack_bf16}.choose();
    case DType::f8_e4m3:
      return IsaTable<PackKernel>{scalar::pack_f8_e4m3, avx2::pack_f8_e4m3}.choose();
    default:
      QNEXT_CHECK(false, "cannot pack {} weights", dtype_name(source));
  }
  return nullptr;
}

}  // namespace

bool can_pack(DType format, int64_t columns) {
  return is_block_quantized(format) && columns % panel_format(format).columns == 0;
}

Encoded encoded(DType format) {
  QNEXT_CHECK(format == DType::q8_0 || format == DType::q4_0, "no encoder of {}",
              dtype_name(format));
  return format == DType::q4_0 ? Encoded::q4_0 : Encoded::q8_0;
}

size_t packed_bytes(DType format, int64_t rows, int64_t columns) {
  const int64_t panels = (rows + layout::panel_rows - 1) / layout::panel_rows;
  return static_cast<size_t>(panels * layout::panel_bytes(panel_format(format), columns));
}

void pack_weights(const WeightMatrix& source, DType format, void* packed) {
  QNEXT_CHECK(can_pack(format, source.columns), "{} columns as {}", source.columns,
              dtype_name(format));
  if (source.dtype != format && format != DType::q8_0 && format != DType::q4_0)
    return encode_panels(source, format, packed);
  if (is_block_quantized(source.dtype))
    return pack_blocks(source, format, pack_kernel(DType::f32), packed);
  const PackKernel pack = pack_kernel(source.dtype);
  const int64_t runs = (source.columns + scale_block - 1) / scale_block;
  PackTask task{nullptr, nullptr, 0, source.columns, encoded(format), packed};
  for (int64_t row = 0; row < source.rows; row += layout::panel_rows) {
    task.source = static_cast<const std::byte*>(source.data) +
                  dtype_bytes(source.dtype, static_cast<size_t>(row * source.columns));
    if (source.dtype == DType::f8_e4m3)
      task.scales = source.block_scales + row / scale_block * runs;
    task.rows = std::min(layout::panel_rows, source.rows - row);
    pack(task);
    task.panel = static_cast<std::byte*>(task.panel) +
                 layout::panel_bytes(panel_format(format), source.columns);
  }
}

void unpack_row(const WeightMatrix& weight, int64_t row, float* out) {
  if (!is_block_quantized(weight.dtype)) return widen_row(weight, row, 0, weight.columns, out);
  const layout::Format& format = panel_format(weight.dtype);
  const auto* panel = static_cast<const uint8_t*>(weight.data) +
                      row / layout::panel_rows * layout::panel_bytes(format, weight.columns);
  std::vector<std::byte> block(block_layout(weight.dtype).bytes);
  for (int64_t b = 0; b < weight.columns / format.columns; ++b, out += format.columns) {
    gather_block(format, panel, b, row % layout::panel_rows, block.data());
    convert_to_float(weight.dtype, block.data(), out, static_cast<size_t>(format.columns));
  }
}

}  // namespace qnext::ops
