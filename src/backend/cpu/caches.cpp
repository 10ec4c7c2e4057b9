#include "backend/cpu/caches.h"

#include <cmath>

#include "base/error.h"

namespace qnext::backend::cpu {

ops::AttentionShape attention_shape(const Config& config) {
  return {config.attention_heads, config.kv_heads, config.head_dim, page_tokens};
}

// The root mean square error of a rounded value, relative to the root mean square of the values.
//
// bf16: at most 2^-9 of the value, evenly spread.
// q8_0: at most half a step of 1/127 of the largest of 32 values, evenly spread; the largest of 32
// normal ones is 2.4 deviations.
//
// Keys and values are rounded once each in every layer that caches them. Each moves the layer's
// output, and so the residual stream, by at most so much of itself, independently of the others, so
// that squares add; the largest of a tensor's thousands of values errs by four times the root mean
// square. That rows are measured by their largest value and not by their root mean square is left
// as safety, for blocks in which one value towers over the others (up to sqrt(32) = 5.7
// deviations).
double cache_rounding_error(const Config& config, bool with_mtp, DType dtype) {
  constexpr double places = 2;
  constexpr double deviations = 4;
  const double evenly_spread = 1 / std::sqrt(3.0);
  double half_step = 0;
  if (dtype == DType::bf16) half_step = 0x1p-9;
  if (dtype == DType::q8_0) half_step = 2.4 / 127 / 2;
  const auto layers = static_cast<double>(kv_layers(config, with_mtp));
  return deviations * half_step * evenly_spread * std::sqrt(places * layers);
}

KvPages::KvPages(const Config& config, bool with_mtp, DType dtype, int32_t pages)
    : page_bytes_(ops::kv_page_bytes(attention_shape(config), dtype)),
      pages_(pages),
      dtype_(dtype) {
  const size_t layers = static_cast<size_t>(kv_layers(config, with_mtp));
  memory_ = AlignedBuffer(layers * static_cast<size_t>(pages) * page_bytes_,
                          "the KV cache; use a shorter --context or a narrower --kv");
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
