#include "backend/cuda/caches.h"

#include <numeric>

#include "base/error.h"

namespace qnext::backend::cuda {

ops::AttentionShape attention_shape(const Config& config) {
  return {config.attention_heads, config.kv_heads, config.head_dim, page_tokens};
}

KvPages::KvPages(int64_t layers, size_t page_bytes, DType dtype, int32_t pages)
    : page_bytes_(layers > 0 ? page_bytes / static_cast<size_t>(layers) : 0),
      pages_(pages),
      dtype_(dtype) {
  memory_ = DeviceBuffer(static_cast<size_t>(pages) * page_bytes,
                         "the KV cache; use a shorter --context or a narrower --kv-type");
}

ops::KvCache KvPages::layer(int64_t index) const {
  return {base(index), static_cast<int64_t>(page_bytes_), dtype_};
}

ops::cuda::PagedCache KvPages::paged_layer(int64_t index) const {
  return {base(index), static_cast<int64_t>(page_bytes_)};
}

StateSlots::StateSlots(const Config& config, DType dtype, int32_t slots, bool spare)
    : shape_(state_shape(config)),
      dtype_(dtype),
      memory_((static_cast<size_t>(slots) + (spare ? 1 : 0)) * shape_.bytes(dtype),
              "the recurrent state; run fewer sequences at once or take --state bf16"),
      slots_(slots),
      places_(static_cast<size_t>(slots) + (spare ? 1 : 0)) {
  std::iota(places_.begin(), places_.end(), 0);
}

ops::cuda::States StateSlots::conv(int64_t index) const {
  return {reinterpret_cast<float*>(layer(index)), stride_of(DType::f32)};
}

ops::cuda::States StateSlots::delta(int64_t index) const {
  QNEXT_CHECK(dtype_ == DType::f32);
  return {reinterpret_cast<float*>(layer_delta(index)), stride_of(DType::f32)};
}

ops::cuda::DeltaStates StateSlots::delta_states(int64_t index) const {
  return {layer_delta(index), stride_of(dtype_),
          dtype_ == DType::f32 ? ops::cuda::StateFormat::f32 : ops::cuda::StateFormat::bf16};
}

}  // namespace qnext::backend::cuda
