// Errors as APIs tell them: a status, and a body in the shape of the protocol.
#pragma once

#include <string>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace qnext::server {

enum class ErrorShape {
  openai,     // {"error": {message, type, param, code}}
  anthropic,  // {"type": "error", "error": {type, message}}
};

class ApiError : public Error {
 public:
  // `code` is for programs, `param` names the field of the request; either may be empty.
  ApiError(int status, const std::string& message, std::string code = {}, std::string param = {})
      : Error(message), status_(status), code_(std::move(code)), param_(std::move(param)) {}

  int status() const { return status_; }
  const std::string& code() const { return code_; }
  const std::string& param() const { return param_; }
  // The response's body.
  json::Object body(ErrorShape shape = ErrorShape::openai) const;

 private:
  int status_;
  std::string code_;
  std::string param_;
};

}  // namespace qnext::server
