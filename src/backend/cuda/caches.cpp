#include "backend/cuda/caches.h"

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

namespace {

size_t conv_bytes(const StateShape& shape) {
  return static_cast<size_t>(shape.conv_floats) * sizeof(float);
}
size_t layer_bytes(const StateShape& shape, DType dtype) {
  return conv_bytes(shape) + dtype_bytes(dtype, static_cast<size_t>(shape.delta_floats));
}

}  // namespace

size_t StateSlots::slot_bytes(const Config& config, DType dtype) {
  const StateShape shape = state_shape(config);
  return static_cast<size_t>(shape.layers) * cuda::layer_bytes(shape, dtype);
}

StateSlots::StateSlots(const Config& config, DType dtype, int32_t slots)
    : memory_(static_cast<size_t>(slots) * slot_bytes(config, dtype),
              "the recurrent state; run fewer sequences at once or take --state bf16"),
      dtype_(dtype),
      conv_bytes_(conv_bytes(state_shape(config))),
      layer_bytes_(cuda::layer_bytes(state_shape(config), dtype)),
      slot_bytes_(slot_bytes(config, dtype)),
      slots_(slots) {}

ops::cuda::States StateSlots::conv(int64_t index) const {
  return {reinterpret_cast<float*>(layer(index)),
          static_cast<int64_t>(slot_bytes_ / sizeof(float))};
}

ops::cuda::States StateSlots::delta(int64_t index) const {
  QNEXT_CHECK(dtype_ == DType::f32);
  return {reinterpret_cast<float*>(layer(index) + conv_bytes_),
          static_cast<int64_t>(slot_bytes_ / sizeof(float))};
}

ops::cuda::DeltaStates StateSlots::delta_states(int64_t index) const {
  const bool wide = dtype_ == DType::f32;
  return {layer(index) + conv_bytes_, static_cast<int64_t>(slot_bytes_ / (wide ? 4 : 2)),
          wide ? ops::cuda::StateFormat::f32 : ops::cuda::StateFormat::bf16};
}

}  // namespace qnext::backend::cuda
