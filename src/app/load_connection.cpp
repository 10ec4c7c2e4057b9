// The one file of app that knows Boost.Beast. All that is read goes through async_read_some and all
// that is written through one async_write: each kind of asynchronous operation costs the compiler
// seconds.
#include "app/load_connection.h"

#include <openssl/ssl.h>

#include <boost/beast/http.hpp>
#include <chrono>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "server/feed_parser.h"
#include "server/transport.h"

namespace qnext::app {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
using tcp = asio::ip::tcp;
using boost::system::error_code;
using Parser = http::response_parser<http::string_body>;

constexpr size_t read_bytes = 16 << 10;

[[noreturn]] void failed(std::string_view doing, const error_code& error) {
  if (error == beast::error::timeout) throw Failure{fmt::format("{}: timeout", doing)};
  if (error == asio::error::eof || error == http::error::end_of_stream ||
      error == http::error::partial_message || error == ssl::error::stream_truncated)
    throw Failure{fmt::format("{}: the server hung up", doing)};
  throw Failure{fmt::format("{}: {}", doing, error.message())};
}

ssl::context client_tls(const LoadTarget& target) {
  ssl::context context(ssl::context::tls_client);
  context.set_default_verify_paths();
  context.set_verify_mode(target.insecure ? ssl::verify_none : ssl::verify_peer);
  if (!target.insecure)
    context.set_verify_callback(ssl::host_name_verification(target.address.host));
  return context;
}

// A request up to and with its body (RFC 9112).
std::string request_text(const LoadTarget& target, const std::string& path,
                         const std::string& body) {
  std::string text = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}\r\n", body.empty() ? "GET" : "POST",
                                 target.address.base, path, target.address.authority());
  if (!body.empty())
    text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
  if (!target.api_key.empty()) text += fmt::format("Authorization: Bearer {}\r\n", target.api_key);
  return text + "\r\n" + body;
}

}  // namespace

struct LoadServer::Shared {
  explicit Shared(const LoadTarget& wanted) : target(wanted), tls(client_tls(wanted)) {
    asio::io_context context;
    tcp::resolver resolver(context);
    error_code error;
    endpoints = resolver.resolve(target.address.host, target.address.port, error);
    if (error) fail("{} cannot be found: {}", target.address.authority(), error.message());
  }

  const LoadTarget& target;
  ssl::context tls;
  tcp::resolver::results_type endpoints;
};

LoadServer::LoadServer(const LoadTarget& target) : shared_(std::make_unique<Shared>(target)) {}
LoadServer::~LoadServer() = default;

struct LoadConnection::State {
  State(asio::io_context& io, LoadServer::Shared& shared) : context(io), server(shared) {}

  asio::awaitable<void> connect();
  asio::awaitable<error_code> send(const std::string& text);
  // Reads until the head is there, or, for a part of the body, until some of it is.
  asio::awaitable<error_code> read(Parser& parser);
  asio::awaitable<void> read_body(Parser& parser, const Take& take);
  void limit_time();

  asio::io_context& context;
  LoadServer::Shared& server;
  std::optional<server::Transport> transport;
  beast::flat_buffer buffer;
};

asio::awaitable<void> LoadConnection::State::connect() {
  const LoadTarget& target = server.target;
  transport.emplace(tcp::socket(context), target.address.tls ? &server.tls : nullptr);
  buffer.clear();
  error_code error;
  auto finished = asio::redirect_error(asio::use_awaitable, error);
  limit_time();
  co_await transport->tcp().async_connect(server.endpoints, finished);
  if (!error && transport->tls()) {
    SSL_set_tlsext_host_name(transport->tls()->native_handle(), target.address.host.c_str());
    co_await transport->tls()->async_handshake(ssl::stream_base::client, finished);
  }
  if (error) {
    transport.reset();
    failed("connecting", error);
  }
  transport->socket().set_option(tcp::no_delay(true), error);
}

void LoadConnection::State::limit_time() {
  transport->tcp().expires_after(std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>(server.target.timeout)));
}

asio::awaitable<error_code> LoadConnection::State::send(const std::string& text) {
  error_code error;
  auto finished = asio::redirect_error(asio::use_awaitable, error);
  limit_time();
  co_await asio::async_write(*transport, asio::const_buffer(text.data(), text.size()), finished);
  co_return error;
}

asio::awaitable<error_code> LoadConnection::State::read(Parser& parser) {
  const bool head = !parser.is_header_done();
  const auto is_read = [&] {
    return head ? parser.is_header_done() : parser.is_done() || !parser.get().body().empty();
  };
  error_code error;
  while (!error && !is_read()) {
    const bool wants_more = server::feed_parser(parser, buffer, error);
    if (!wants_more || is_read()) continue;
    limit_time();
    auto finished = asio::redirect_error(asio::use_awaitable, error);
    const asio::mutable_buffer space = buffer.prepare(read_bytes);
    buffer.commit(co_await transport->async_read_some(space, finished));
    // A body without a length ends with the connection.
    if (error == asio::error::eof && !head) {
      error = {};
      parser.put_eof(error);
    }
  }
  co_return error;
}

asio::awaitable<void> LoadConnection::State::read_body(Parser& parser, const Take& take) {
  const int status = static_cast<int>(parser.get().result_int());
  std::string& body = parser.get().body();
  bool go_on = true;
  while (go_on) {
    const error_code error = co_await read(parser);
    if (error) {
      transport.reset();
      failed("reading the response", error);
    }
    if (!body.empty()) go_on = take(status, std::exchange(body, {}));
    if (parser.is_done()) break;
  }
  if (!parser.is_done() || !parser.keep_alive()) transport.reset();
}

LoadConnection::LoadConnection(asio::io_context& context, const LoadServer& server)
    : state_(std::make_unique<State>(context, *server.shared_)) {}
LoadConnection::~LoadConnection() = default;

asio::awaitable<int> LoadConnection::exchange(std::string path, std::string body, Take take) {
  State& state = *state_;
  const std::string text = request_text(state.server.target, path, body);
  for (;;) {
    const bool reused = state.transport.has_value();
    if (!reused) co_await state.connect();
    Parser parser;
    parser.body_limit(boost::none);
    error_code error = co_await state.send(text);
    if (!error) error = co_await state.read(parser);
    if (error) {
      state.transport.reset();
      // A server may end a connection that idles just when it is used again.
      if (reused && error != beast::error::timeout) continue;
      failed("waiting for the response", error);
    }
    co_await state.read_body(parser, take);
    co_return static_cast<int>(parser.get().result_int());
  }
}

}  // namespace qnext::app
