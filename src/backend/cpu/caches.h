// The memory that outlives a step: KV pages and recurrent state slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/aligned_buffer.h"
#include "model/cache_shape.h"
#include "model/config.h"
#include "ops/attention/attention.h"

namespace qnext::backend::cpu {

// 64 positions: two kv heads of 256 in fp32 make 256 KiB, one page of one layer stays in L2 while
// a tile of queries passes over it.
constexpr int64_t page_tokens = 64;

// Pages of all attention layers, one region a layer: [layers][pages][K then V].
class KvPages {
 public:
  KvPages() = default;
  KvPages(const Config& config, bool with_mtp, DType dtype, int32_t pages);

  ops::KvCache layer(int64_t index);  // attention layers in order, the MTP head's last
  // Of one layer.
  std::span<std::byte> page(int64_t layer, int32_t page);
  int32_t count() const { return pages_; }

 private:
  AlignedBuffer memory_;
  size_t page_bytes_ = 0;  // of one layer
  int32_t pages_ = 0;
  DType dtype_ = DType::f32;
};

// Slots of all Gated DeltaNet layers: [slots][layers][convolution inputs, S].
class StateSlots {
 public:
  StateSlots() = default;
  StateSlots(const Config& config, int32_t slots);

  float* conv(int32_t slot, int64_t layer) { return at(slot, layer); }
  float* delta(int32_t slot, int64_t layer) { return at(slot, layer) + shape_.conv_floats; }
  std::byte* bytes(int32_t slot) { return reinterpret_cast<std::byte*>(at(slot, 0)); }
  size_t slot_bytes() const { return shape_.bytes(); }
  int32_t count() const { return slots_; }

 private:
  float* at(int32_t slot, int64_t layer) {
    const int64_t stride = shape_.layers * shape_.layer_floats();
    return reinterpret_cast<float*>(memory_.data()) + slot * stride + layer * shape_.layer_floats();
  }

  StateShape shape_;
  AlignedBuffer memory_;
  int32_t slots_ = 0;
};

ops::AttentionShape attention_shape(const Config& config);

// What rounding keys and values to `dtype` adds to Capabilities::relative_error.
double cache_rounding_error(const Config& config, bool with_mtp, DType dtype);

}  // namespace qnext::backend::cpu
