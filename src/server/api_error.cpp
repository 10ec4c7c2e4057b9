#include "server/api_error.h"

namespace qnext::server {
namespace {

const char* type_of(int status) {
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

json::Value or_null(const std::string& text) {
  return text.empty() ? json::Value() : json::Value(text);
}

}  // namespace

json::Object ApiError::body() const {
  return {{"error", json::Object{{"message", what()},
                                 {"type", type_of(status_)},
                                 {"param", or_null(param_)},
                                 {"code", or_null(code_)}}}};
}

}  // namespace qnext::server
