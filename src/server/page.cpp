#include "server/page.h"

namespace qnext::server {
namespace {

constexpr std::string_view folder = "/page/";

std::string_view content_type(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  return "image/svg+xml";
}

}  // namespace

PageFile find_page_file(std::string_view path) {
  if (path == "/")
    path = "index.html";
  else if (path.starts_with(folder))
    path.remove_prefix(folder.size());
  for (const EmbeddedFile& file : embedded_files()) {
    if (file.name == path)
      return {content_type(file.name), {reinterpret_cast<const char*>(file.bytes), file.size}};
  }
  return {};
}

const std::vector<std::pair<std::string, std::string>>& page_headers() {
  static const std::vector<std::pair<std::string, std::string>> headers = {
      {"content-security-policy",
       "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src "
       "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
      {"x-content-type-options", "nosniff"},
      {"x-frame-options", "DENY"},
      {"referrer-policy", "no-referrer"},
      {"cross-origin-opener-policy", "same-origin"},
      {"cross-origin-resource-policy", "same-origin"},
      {"permissions-policy", "camera=(), geolocation=(), microphone=()"},
      // A new program's page is seen at once.
      {"cache-control", "no-cache"}};
  return headers;
}

}  // namespace qnext::server
