#include "server/allowed_sites.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace qnext::server {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// What stands before the port: a name, an address, or an address of IPv6 in brackets.
std::string_view without_port(std::string_view authority) {
  const size_t colon = authority.rfind(':');
  const size_t bracket = authority.rfind(']');
  const bool has_port =
      colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket);
  return has_port ? authority.substr(0, colon) : authority;
}

// As browsers write it in Host.
std::string host_name(std::string_view text) {
  std::string name = lower(text);
  if (name.ends_with('.')) name.pop_back();
  const bool is_bare_ipv6 = std::ranges::count(name, ':') > 1 && !name.starts_with('[');
  return is_bare_ipv6 ? "[" + name + "]" : name;
}

bool is_address(const std::string& name) {
  in6_addr space = {};
  if (name.starts_with('[') && name.ends_with(']'))
    return inet_pton(AF_INET6, name.substr(1, name.size() - 2).c_str(), &space) == 1;
  return inet_pton(AF_INET, name.c_str(), &space) == 1;
}

struct Origin {
  std::string scheme;
  std::string authority;  // without the scheme's own port
};

std::string without_own_port(std::string authority, std::string_view scheme) {
  const std::string_view own = scheme == "https" ? ":443" : scheme == "http" ? ":80" : "";
  if (!own.empty() && authority.ends_with(own)) authority.resize(authority.size() - own.size());
  return authority;
}

// Nothing of "null" and of what is none.
std::optional<Origin> parse_origin(std::string_view text) {
  constexpr std::string_view behind_scheme = "://";
  const size_t end = text.find(behind_scheme);
  if (end == 0 || end == std::string_view::npos) return std::nullopt;
  Origin origin{lower(text.substr(0, end)), lower(text.substr(end + behind_scheme.size()))};
  const bool is_plain =
      !origin.authority.empty() && origin.authority.find_first_of("/?#@*, ") == std::string::npos;
  if (!is_plain) return std::nullopt;
  origin.authority = without_own_port(std::move(origin.authority), origin.scheme);
  return origin;
}

std::string written(const Origin& origin) {
  return origin.scheme + "://" + origin.authority;
}

// A list of names of headers, which goes back to a browser as it came.
bool is_header_list(std::string_view text) {
  return text.size() < 4096 && std::ranges::all_of(text, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == ',' || c == ' ';
         });
}

}  // namespace

AllowedSites::AllowedSites(const SiteOptions& options)
    : hosts_{"localhost", "127.0.0.1", "[::1]", host_name(options.listens_on)},
      any_address_(options.listens_on == "0.0.0.0" || options.listens_on == "::") {
  for (const std::string& host : options.hosts) {
    const std::string name = host_name(host);
    if (name.empty() || name.find_first_of("/@*, ") != std::string::npos ||
        without_port(name) != name)
      fail("'{}' is no host name: write one as in a browser's address, without a port", host);
    hosts_.push_back(name);
  }
  for (const std::string& text : options.origins) {
    if (text == "*") {
      any_origin_ = true;
      continue;
    }
    const auto origin = parse_origin(text);
    if (!origin) fail("'{}' is no origin: write https://name, https://name:port or *", text);
    origins_.push_back(written(*origin));
  }
}

bool AllowedSites::allows_host(const std::string& name) const {
  return std::ranges::find(hosts_, name) != hosts_.end() || (any_address_ && is_address(name));
}

bool AllowedSites::allows_origin(std::string_view text) const {
  if (text.empty()) return false;
  if (any_origin_) return true;
  const auto origin = parse_origin(text);
  return origin && std::ranges::find(origins_, written(*origin)) != origins_.end();
}

std::optional<ApiError> AllowedSites::refuse(std::string_view host,
                                             std::string_view origin_text) const {
  const std::string name = host_name(without_port(host));
  // Every browser names the host.
  if (!host.empty() && !allows_host(name))
    return ApiError(421,
                    fmt::format("this server has no key and does not answer by the name '{}': "
                                "start it with --allow-host {}, or with --api-key",
                                name, name),
                    "wrong_host");
  if (origin_text.empty() || allows_origin(origin_text)) return std::nullopt;
  const auto origin = parse_origin(origin_text);
  if (origin && origin->authority == without_own_port(lower(host), origin->scheme))
    return std::nullopt;
  return ApiError(403,
                  fmt::format("this server has no key and does not answer pages of {}: start it "
                              "with --allow-origin {}",
                              origin_text, origin_text),
                  "wrong_origin");
}

AllowedSites::Headers AllowedSites::response_headers(std::string_view origin) const {
  if (!any_origin_ && origins_.empty()) return {};
  // Caches must not give one site what was said to another.
  Headers headers{{"vary", "Origin"}};
  if (!allows_origin(origin)) return headers;
  headers.emplace_back("access-control-allow-origin", origin);
  headers.emplace_back("access-control-expose-headers",
                       "x-request-id, request-id, retry-after, x-qnext-note");
  return headers;
}

AllowedSites::Headers AllowedSites::preflight_headers(std::string_view origin,
                                                      std::string_view methods,
                                                      std::string_view wanted) const {
  if (!allows_origin(origin)) return {};
  Headers headers{{"access-control-allow-methods", std::string(methods)},
                  {"access-control-max-age", "600"}};
  if (!wanted.empty() && is_header_list(wanted))
    headers.emplace_back("access-control-allow-headers", wanted);
  return headers;
}

}  // namespace qnext::server
