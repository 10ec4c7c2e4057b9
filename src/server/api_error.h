// Errors as OpenAI's API tells them: a status and {"error": {message, type, param, code}}.
#pragma once

#include <string>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace qnext::server {

class ApiError : public Error {
 public:
  // `code` is for programs, `param` names the field of the request; either may be empty.
  ApiError(int status, const std::string& message, std::string code = {}, std::string param = {})
      : Error(message), status_(status), code_(std::move(code)), param_(std::move(param)) {}

  int status() const { return status_; }
  // The response's body.
  json::Object body() const;

 private:
  int status_;
  std::string code_;
  std::string param_;
};

}  // namespace qnext::server
