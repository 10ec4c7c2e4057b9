#include "backend/common/capabilities.h"

#include <utility>

#include "model/cache_shape.h"

namespace qnext::backend {

Capabilities make_capabilities(std::string device, const Config& config, bool has_mtp,
                               DType kv_dtype, DType state_dtype, int64_t page_tokens,
                               size_t weight_bytes) {
  Capabilities out;
  out.device = std::move(device);
  out.page_tokens = page_tokens;
  out.page_bytes = kv_bytes_per_token(config, has_mtp, kv_dtype) * static_cast<size_t>(page_tokens);
  out.slot_bytes = state_shape(config).bytes(state_dtype);
  out.weight_bytes = weight_bytes;
  out.has_mtp = has_mtp;
  return out;
}

size_t cache_bytes(const Capabilities& capabilities, const Reservation& reservation) {
  return static_cast<size_t>(reservation.pages) * capabilities.page_bytes +
         static_cast<size_t>(reservation.slots) * capabilities.slot_bytes;
}

}  // namespace qnext::backend
