// Weights to q4_0 and q8_0 panels by way of the published codec.
#include <algorithm>
#include <cstring>

#include "ops/matmul/kernels.h"
#include "ops/matmul/layout.h"
#include "tensor/blocks.h"
#include "tensor/dtype.h"

namespace qnext::ops::scalar {

namespace {

constexpr int64_t scale_run = 128;

template <typename Block>
void place(const float* values, int64_t b, int64_t lane, uint8_t* panel) {
  constexpr int bits = sizeof(Block::qs) == 32 ? 8 : 4;
  constexpr int offset = bits == 8 ? 128 : 0;
  Block block;
  encode(values, block);
  std::memcpy(panel + layout::scales_at(bits, b) + 2 * lane, &block.d, 2);
  uint8_t* quants = panel + layout::quants_at(bits, b) + 4 * lane;
  for (size_t i = 0; i < sizeof block.qs; ++i)
    quants[i / 4 * 64 + i % 4] = static_cast<uint8_t>(block.qs[i] + offset);
}

void pack(const PackTask& task, DType dtype) {
  auto* panel = static_cast<uint8_t*>(task.panel);
  std::memset(panel, 0, static_cast<size_t>(layout::panel_bytes(task.bits, task.columns)));
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
      if (task.bits == 8)
        place<BlockQ8_0>(values, b, row, panel);
      else
        place<BlockQ4_0>(values, b, row, panel);
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
