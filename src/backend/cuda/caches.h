// The memory that outlives a step: KV pages and recurrent state slots, on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "backend/cuda/device_memory.h"
#include "model/cache_shape.h"
#include "model/config.h"
#include "ops/attention/attention.h"
#include "ops/attention/paged_attention_cuda.h"
#include "ops/batch_cuda.h"
#include "ops/gated_delta/delta_layer_cuda.h"

namespace qnext::backend::cuda {

// One block of the softmax (attention_block), so that a block lies in one page.
constexpr int64_t page_tokens = 64;

ops::AttentionShape attention_shape(const Config& config);

// Pages of all attention layers, one region a layer: [layers][pages]. What lies inside a page is
// the kernels' affair.
class KvPages {
 public:
  KvPages() = default;
  // page_bytes: of one page over all layers.
  KvPages(int64_t layers, size_t page_bytes, DType dtype, int32_t pages);

  // Attention layers in order, the MTP head's last; as the plain kernels and as the paged ones see
  // it.
  ops::KvCache layer(int64_t index) const;
  ops::cuda::PagedCache paged_layer(int64_t index) const;
  // Of one layer.
  std::byte* page(int64_t layer, int32_t page) const {
    return base(layer) + static_cast<size_t>(page) * page_bytes_;
  }
  size_t layer_page_bytes() const { return page_bytes_; }
  int32_t count() const { return pages_; }

 private:
  std::byte* base(int64_t index) const {
    return memory_.data() + static_cast<size_t>(index) * static_cast<size_t>(pages_) * page_bytes_;
  }

  DeviceBuffer memory_;
  size_t page_bytes_ = 0;  // of one layer
  int32_t pages_ = 0;
  DType dtype_ = DType::f32;
};

// Slots of all Gated DeltaNet layers: [places][layers][convolution inputs in fp32, S]. There may be
// a place more than slots: the state behind a step that may turn out to be wrong goes there, and
// becomes the slot's when it is right. Kernels are told places.
class StateSlots {
 public:
  StateSlots() = default;
  // dtype: of S; f32 or bf16.
  StateSlots(const Config& config, DType dtype, int32_t slots, bool spare);

  // Of a slot, or no_slot; without a spare place these are the slots' own numbers for ever.
  int32_t place(int32_t slot) const { return slot < 0 ? slot : places_[static_cast<size_t>(slot)]; }
  int32_t spare_place() const { return places_.back(); }
  void swap_with_spare(int32_t slot) {
    std::swap(places_[static_cast<size_t>(slot)], places_.back());
  }

  ops::cuda::States conv(int64_t layer) const;
  // S in fp32, as the plain kernels take it; in any type, as the tensor-core kernels do.
  ops::cuda::States delta(int64_t layer) const;
  ops::cuda::DeltaStates delta_states(int64_t layer) const;

  std::byte* bytes(int32_t slot) const {
    return memory_.data() + static_cast<size_t>(place(slot)) * shape_.bytes(dtype_);
  }
  size_t layer_bytes() const { return shape_.layer_bytes(dtype_); }
  int32_t count() const { return slots_; }

 private:
  std::byte* layer(int64_t index) const {
    return memory_.data() + static_cast<size_t>(index) * layer_bytes();
  }
  std::byte* layer_delta(int64_t index) const {
    return layer(index) + static_cast<size_t>(shape_.conv_floats) * sizeof(float);
  }
  // From slot to slot, in values of a type.
  int64_t stride_of(DType dtype) const {
    return static_cast<int64_t>(shape_.bytes(dtype_) / dtype_bytes(dtype, 1));
  }

  StateShape shape_;
  DType dtype_ = DType::f32;
  DeviceBuffer memory_;
  int32_t slots_ = 0;
  std::vector<int32_t> places_;  // of the slots; the spare one, if any, last
};

}  // namespace qnext::backend::cuda
