#include "server/api_error.h"

namespace qnext::server {
namespace {

const char* openai_type(int status) {
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

const char* anthropic_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

json::Value or_null(const std::string& text) {
  return text.empty() ? json::Value() : json::Value(text);
}

}  // namespace

json::Object ApiError::body(ErrorShape shape) const {
  if (shape == ErrorShape::anthropic)
    return {{"type", "error"},
            {"error", json::Object{{"type", anthropic_type(status_)}, {"message", what()}}}};
  return {{"error", json::Object{{"message", what()},
                                 {"type", openai_type(status_)},
                                 {"param", or_null(param_)},
                                 {"code", or_null(code_)}}}};
}

}  // namespace qnext::server
