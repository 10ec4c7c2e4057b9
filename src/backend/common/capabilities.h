// What a backend offers, from the model's shapes: the same sum on every device.
#pragma once

#include <cstdint>
#include <string>

#include "backend/step.h"
#include "tensor/dtype.h"

namespace qnext::backend {

Capabilities make_capabilities(std::string device, const Config& config, bool has_mtp,
                               DType kv_dtype, DType state_dtype, int64_t page_tokens,
                               size_t weight_bytes);

// Bytes of the pages and slots of a reservation; the workspace is the backend's own.
size_t cache_bytes(const Capabilities& capabilities, const Reservation& reservation);

}  // namespace qnext::backend
