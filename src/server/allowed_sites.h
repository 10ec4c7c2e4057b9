// Which pages in a browser may send requests to this server.
//
// A page from anywhere can send requests to servers that its reader reaches: to this computer's own
// (its Origin tells), or, by a name that it lets point there, as if to itself (DNS rebinding: the
// Host tells). A key keeps such pages out. Without one only those names are answered that nobody
// else can give an address to, and only pages of this server itself. Programs that are no browsers
// send no Origin.
//
// CORS: origins that are named may read answers as well, with a key or without.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/api_error.h"

namespace qnext::server {

struct SiteOptions {
  // What the server listens on. "0.0.0.0" or "::": all, so that any address, but no name, is its
  // own.
  std::string listens_on = "127.0.0.1";
  std::vector<std::string> hosts = {};    // other names that clients call it by, without a port
  std::vector<std::string> origins = {};  // "https://name:port" of other sites; "*": any
};

class AllowedSites {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;

  // Throws Error where a host or an origin is none.
  explicit AllowedSites(const SiteOptions& options);

  // Of a server without a key: 421 or 403, where the headers Host and Origin (empty: absent) say
  // that the request is another site's.
  std::optional<ApiError> refuse(std::string_view host, std::string_view origin) const;
  // For responses to this origin.
  Headers response_headers(std::string_view origin) const;
  // For the answer to a browser that asks first. `wanted`: the header
  // Access-Control-Request-Headers.
  Headers preflight_headers(std::string_view origin, std::string_view methods,
                            std::string_view wanted) const;

 private:
  bool allows_host(const std::string& name) const;
  bool allows_origin(std::string_view origin) const;

  std::vector<std::string> hosts_;
  std::vector<std::string> origins_;
  bool any_address_ = false;
  bool any_origin_ = false;
};

}  // namespace qnext::server
