#include "backend/cpu/caches.h"

#include "base/error.h"

namespace qnext::backend::cpu {

ops::AttentionShape attention_shape(const Config& config) {
  return {config.attention_heads, config.kv_heads, config.head_dim, page_tokens};
}

KvPages::KvPages(const Config& config, bool with_mtp, DType dtype, int32_t pages)
    : page_bytes_(ops::kv_page_bytes(attention_shape(config), dtype)),
      pages_(pages),
      dtype_(dtype) {
  const size_t layers = static_cast<size_t>(kv_layers(config, with_mtp));
  memory_ = AlignedBuffer(layers * static_cast<size_t>(pages) * page_bytes_,
                          "the KV cache; use a shorter --context or --kv-type bf16");
}

ops::KvCache KvPages::layer(int64_t index) {
  const size_t offset = static_cast<size_t>(index) * static_cast<size_t>(pages_) * page_bytes_;
  return {memory_.data() + offset, static_cast<int64_t>(page_bytes_), dtype_};
}

std::span<std::byte> KvPages::page(int64_t layer, int32_t page) {
  QNEXT_CHECK(page >= 0 && page < pages_, "page {}", page);
  const size_t index = static_cast<size_t>(layer) * static_cast<size_t>(pages_);
  return {memory_.data() + (index + static_cast<size_t>(page)) * page_bytes_, page_bytes_};
}

StateSlots::StateSlots(const Config& config, int32_t slots)
    : shape_(state_shape(config)),
      memory_(static_cast<size_t>(slots) * shape_.bytes(),
              "the recurrent state; run fewer sequences at once"),
      slots_(slots) {}

}  // namespace qnext::backend::cpu
