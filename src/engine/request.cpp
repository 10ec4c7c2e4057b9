#include "engine/request.h"

#include "base/error.h"

namespace qnext::engine {

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop_token:
      return "stop_token";
    case FinishReason::stop_string:
      return "stop_string";
    case FinishReason::length:
      return "length";
    case FinishReason::context:
      return "context";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::error:
      return "error";
    case FinishReason::embedded:
      return "embedded";
  }
  QNEXT_CHECK(false, "finish reason {}", static_cast<int>(reason));
}

}  // namespace qnext::engine
