// Where a server of the API is.
#pragma once

#include <string>
#include <string_view>

namespace qnext::app {

struct ServerAddress {
  bool tls = false;
  std::string host;
  std::string port;
  std::string base;  // "/v1": what all paths begin with

  // "a.example", "127.0.0.1:8000", "[::1]:8000": as a Host field names it (RFC 9110, 7.2), without
  // the scheme's own port.
  std::string authority() const;
};

// "http://127.0.0.1:8000", "https://host/v1", "host:8000". Without a path it is "/v1". Throws Error
// on what is no such URL.
ServerAddress parse_server_url(std::string_view url);

}  // namespace qnext::app
