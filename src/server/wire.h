// What a response is made of on the wire (RFC 9112): its head and the pieces of its body.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/api.h"

namespace qnext::server {

struct HeadOptions {
  unsigned version = 11;  // of HTTP, as the request had it: 10 or 11
  bool keep_alive = true;
  std::string_view request_id = {};
  std::vector<std::pair<std::string, std::string>> headers = {};  // beside those of the reply
  std::optional<uint64_t> content_length =
      {};  // none: the body is chunked, or ends with the connection
};

// The head of `reply`, up to and with the empty line.
std::string head_text(const Reply& reply, const HeadOptions& options);

// A piece of a chunked body; behind the last one the end of the body, so that both go out together.
std::string chunk_text(std::string_view piece, bool last);

}  // namespace qnext::server
