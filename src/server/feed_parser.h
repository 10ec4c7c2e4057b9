// One step of reading a message by Boost.Beast's parser.
#pragma once

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>

namespace qnext::server {

// Gives `parser` what `buffer` holds and takes from it what was read. True: to go on it wants more
// bytes than there are. `error` says what is wrong with the message, else nothing.
template <bool is_request, typename Body>
bool feed_parser(boost::beast::http::parser<is_request, Body>& parser,
                 boost::beast::flat_buffer& buffer, boost::system::error_code& error) {
  error = {};
  if (buffer.size() > 0) buffer.consume(parser.put(buffer.data(), error));
  const bool cut = error == boost::beast::http::error::need_more;
  if (cut) error = {};
  return cut || (!error && buffer.size() == 0);
}

}  // namespace qnext::server
