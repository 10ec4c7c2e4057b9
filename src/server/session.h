// A connection of the HTTP server, and the request that it is at.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"
#include "server/api.h"
#include "server/http_server.h"
#include "server/transport.h"

namespace qnext::server {

class AccessLog;

// What all connections of a server share; outlives them.
struct SessionContext {
  Api& api;
  AccessLog* log;  // may be null
  const HttpOptions& options;
  boost::asio::ssl::context* tls;     // null: no TLS
  const std::atomic<bool>& stopping;  // no further requests
};

// Lives on the strand of its socket; what other threads may call says so.
class Session : public std::enable_shared_from_this<Session> {
 public:
  using error_code = boost::system::error_code;
  template <typename T>
  using Awaitable = boost::asio::awaitable<T>;

  // `left` is called when the connection has ended.
  Session(const SessionContext& context, boost::asio::ip::tcp::socket socket,
          std::function<void(Session*)> left);
  ~Session();

  // Serves until the connection ends. `session` keeps itself alive until then.
  static Awaitable<void> run(std::shared_ptr<Session> session);
  // Answers 503, whatever the request.
  static Awaitable<void> turn_away(std::shared_ptr<Session> session);

  // Ends a connection that waits for its next request. Any thread.
  void close_if_idle();
  // Ends it in any case. Any thread.
  void close_now();

 private:
  using Clock = std::chrono::steady_clock;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  void close();
  Awaitable<bool> shake_hands();
  Awaitable<void> say_goodbye();

  // One request and its response. False: the connection is to end.
  Awaitable<bool> serve_one();
  Awaitable<bool> wait_for_request();
  // What has come, behind what the buffer holds.
  Awaitable<error_code> read_more();
  // Reads on until the parser has the head, or all of the request.
  Awaitable<error_code> read(Parser& parser, bool whole);
  void read_head(const Parser& parser, Request& request);
  Awaitable<void> invite_body(const Parser& parser);
  Awaitable<bool> answer_unread(const Request& request, Reply reply);
  Awaitable<bool> refuse_unread(const Request& request, error_code error);
  Awaitable<void> linger();

  std::string head_of(const Reply& reply, std::optional<uint64_t> content_length) const;
  // Of all these, false: the client left before its answer. One that leaves once it has it is as
  // good as any: many do as soon as they have read "[DONE]".
  Awaitable<bool> write(const std::string& bytes);
  Awaitable<bool> write_whole(const Reply& reply);
  Awaitable<bool> write_at_end(Reply& reply);
  Awaitable<bool> write_events(Reply& reply);

  Awaitable<void> write_generation(Reply& reply);
  Awaitable<Generation::Output> next_output(Generation& generation);
  Clock::time_point deadline() const;
  void read_ahead();
  Awaitable<void> end_reading_ahead();

  void begin_exchange(const Request& request);
  void log_usage(const Generation& generation, bool answered);
  void end_exchange(const Request& request, const Reply& reply);

  static constexpr size_t read_bytes = 16 << 10;  // at once
  static constexpr size_t most_read_ahead = 64 << 10;
  static constexpr size_t most_dropped = size_t{64} << 20;  // by linger()

  const SessionContext& context_;
  std::function<void(Session*)> left_;
  Transport stream_;
  boost::beast::flat_buffer buffer_;
  boost::asio::steady_timer news_;  // cancelled where there is something to look at
  std::string remote_;
  bool idle_ = false;
  bool has_news_ = false;
  bool gone_ = false;  // the client
  bool answering_ = false;
  bool reading_ahead_ = false;
  // Of the request that is served.
  bool keep_alive_ = true;
  bool head_only_ = false;  // no body is wanted
  unsigned version_ = 11;
  std::string id_;
  std::string origin_;
  Clock::time_point begin_;
  json::Object line_;
};

}  // namespace qnext::server
