#include "app/server_address.h"

#include <fmt/format.h>

#include "base/error.h"

namespace qnext::app {
namespace {

std::string_view default_port(bool tls) {
  return tls ? "443" : "80";
}

}  // namespace

std::string ServerAddress::authority() const {
  const bool has_colons = host.find(':') != std::string::npos;
  const std::string name = has_colons ? fmt::format("[{}]", host) : host;
  return port == default_port(tls) ? name : fmt::format("{}:{}", name, port);
}

ServerAddress parse_server_url(std::string_view url) {
  ServerAddress address;
  std::string_view rest = url;
  if (const size_t scheme = rest.find("://"); scheme != std::string_view::npos) {
    const std::string_view name = rest.substr(0, scheme);
    if (name != "http" && name != "https") fail("{}: a URL begins with http:// or https://", url);
    address.tls = name == "https";
    rest.remove_prefix(scheme + 3);
  }
  const size_t slash = rest.find('/');
  std::string_view authority = rest.substr(0, slash);
  address.base = slash == std::string_view::npos ? "" : rest.substr(slash);
  while (address.base.ends_with('/')) address.base.pop_back();
  if (address.base.empty()) address.base = "/v1";
  address.port = default_port(address.tls);
  const size_t colon = authority.rfind(':');
  // "[::1]" has colons of its own.
  if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos) {
    address.port = authority.substr(colon + 1);
    authority = authority.substr(0, colon);
  }
  if (authority.starts_with('[') && authority.ends_with(']'))
    authority = authority.substr(1, authority.size() - 2);
  address.host = authority;
  const bool is_number = !address.port.empty() && address.port.size() <= 5 &&
                         address.port.find_first_not_of("0123456789") == std::string::npos;
  if (address.host.empty() || !is_number || url.find_first_of(" \r\n\t") != std::string_view::npos)
    fail("{} is no URL of a server: give one such as http://127.0.0.1:8000", url);
  return address;
}

}  // namespace qnext::app
