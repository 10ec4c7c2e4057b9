// The memory that outlives a step: KV pages and recurrent state slots, on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/device_memory.h"
#include "model/cache_shape.h"
#include "model/config.h"
#include "ops/attention/attention.h"
#include "ops/batch_cuda.h"

namespace qnext::backend::cuda {

// One block of the softmax (attention_block), so that a block lies in one page.
constexpr int64_t page_tokens = 64;

ops::AttentionShape attention_shape(const Config& config);

// Pages of all attention layers, one region a layer: [layers][pages][K then V].
class KvPages {
 public:
  KvPages() = default;
  KvPages(const Config& config, bool with_mtp, DType dtype, int32_t pages);

  ops::KvCache layer(int64_t index) const;  // attention layers in order, the MTP head's last
  int32_t count() const { return pages_; }

 private:
  DeviceBuffer memory_;
  size_t page_bytes_ = 0;  // of one layer
  int32_t pages_ = 0;
  DType dtype_ = DType::f32;
};

// Slots of all Gated DeltaNet layers: [slots][layers][convolution inputs, S].
class StateSlots {
 public:
  StateSlots() = default;
  StateSlots(const Config& config, int32_t slots);

  ops::cuda::States conv(int64_t layer) const { return at(layer, 0); }
  ops::cuda::States delta(int64_t layer) const { return at(layer, shape_.conv_floats); }
  std::byte* bytes(int32_t slot) const {
    return memory_.data() + static_cast<size_t>(slot) * shape_.bytes();
  }
  int32_t count() const { return slots_; }

 private:
  ops::cuda::States at(int64_t layer, int64_t offset) const {
    return {memory_.as<float>() + layer * shape_.layer_floats() + offset,
            shape_.layers * shape_.layer_floats()};
  }

  StateShape shape_;
  DeviceBuffer memory_;
  int32_t slots_ = 0;
};

}  // namespace qnext::backend::cuda
