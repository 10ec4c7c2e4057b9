// Weights to q4_0 and q8_0 panels by way of the published codec.
#include <cstring>

#include "ops/matmul/kernels.h"
#include "ops/matmul/panel_blocks.h"
#include "tensor/blocks.h"
#include "tensor/dtype.h"

namespace qnext::ops::scalar {

namespace {

constexpr int64_t scale_run = 128;

template <typename Block>
void encode_block(const float* values, const layout::Format& format, int64_t b, int64_t lane,
                  uint8_t* panel) {
  Block block;
  encode(values, block);
  place_block(format, reinterpret_cast<const std::byte*>(&block), b, lane, panel);
}

void pack(const PackTask& task, DType dtype) {
  auto* panel = static_cast<uint8_t*>(task.panel);
  const layout::Format& format = task.format == Encoded::q8_0 ? layout::q8_0 : layout::q4_0;
  std::memset(panel, 0, static_cast<size_t>(layout::panel_bytes(format, task.columns)));
  for (int64_t row = 0; row < task.rows; ++row)
    for (int64_t b = 0; b < task.columns / layout::block; ++b) {
      const int64_t at = row * task.columns + b * layout::block;
      float values[layout::block];
      convert_to_float(
          dtype,
          static_cast<const std::byte*>(task.source) + dtype_bytes(dtype, static_cast<size_t>(at)),
          values, layout::block);
      if (dtype == DType::f8_e4m3)
        for (float& value : values) value *= task.scales[b * layout::block / scale_run];
      if (task.format == Encoded::q8_0)
        encode_block<BlockQ8_0>(values, format, b, row, panel);
      else
        encode_block<BlockQ4_0>(values, format, b, row, panel);
    }
}

}  // namespace

void pack_f32(const PackTask& task) {
  pack(task, DType::f32);
}
void pack_f16(const PackTask& task) {
  pack(task, DType::f16);
}
void pack_bf16(const PackTask& task) {
  pack(task, DType::bf16);
}
void pack_f8_e4m3(const PackTask& task) {
  pack(task, DType::f8_e4m3);
}

}  // namespace qnext::ops::scalar
