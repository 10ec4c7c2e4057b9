#include "server/wire.h"

#include <fmt/format.h>

#include <boost/beast/http/status.hpp>

namespace qnext::server {
namespace {

namespace http = boost::beast::http;

std::string_view reason(int status) {
  const boost::beast::string_view text = http::obsolete_reason(static_cast<http::status>(status));
  return {text.data(), text.size()};
}

}  // namespace

std::string head_text(const Reply& reply, const HeadOptions& options) {
  std::string text = fmt::format("HTTP/1.{} {} {}\r\n", options.version >= 11 ? 1 : 0, reply.status,
                                 reason(reply.status));
  const auto add = [&text](std::string_view name, std::string_view value) {
    text += fmt::format("{}: {}\r\n", name, value);
  };
  add("Content-Type", reply.content_type);
  add("X-Request-Id", options.request_id);
  for (const auto& [name, value] : reply.headers) add(name, value);
  for (const auto& [name, value] : options.headers) add(name, value);
  if (options.version < 11 && options.keep_alive) add("Connection", "keep-alive");
  if (options.version >= 11 && !options.keep_alive) add("Connection", "close");
  // 204 has no body, and says nothing of one.
  if (reply.status != 204) {
    if (options.content_length)
      add("Content-Length", std::to_string(*options.content_length));
    else if (options.version >= 11)
      add("Transfer-Encoding", "chunked");
  }
  text += "\r\n";
  return text;
}

std::string chunk_text(std::string_view piece, bool last) {
  std::string text;
  if (!piece.empty()) text = fmt::format("{:x}\r\n{}\r\n", piece.size(), piece);
  if (last) text += "0\r\n\r\n";
  return text;
}

}  // namespace qnext::server
