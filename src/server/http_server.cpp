// The one file of server that knows Boost.Beast: it takes half a minute to compile.
#include "server/http_server.h"

#include <atomic>
#include <boost/beast/http.hpp>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "server/access_log.h"
#include "server/api.h"
#include "server/random_id.h"
#include "server/transport.h"
#include "text/utf8.h"

namespace qnext::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
using tcp = asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

// The client's own name for its request, where it is harmless in headers, logs and responses.
std::string request_id(beast::string_view given) {
  const auto harmless = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  if (given.empty() || given.size() > 64 || !std::all_of(given.begin(), given.end(), harmless))
    return random_id();
  return std::string(given);
}

// Any bytes may come; errors and log lines repeat them and are UTF-8.
std::string as_utf8(std::string_view bytes) {
  std::string text;
  utf8::StreamDecoder decoder;
  decoder.push(bytes, text);
  decoder.finish(text);
  return text;
}

// Nothing where no TLS is asked for.
std::optional<ssl::context> make_tls(const HttpOptions& options) {
  if (options.tls_certificate.empty()) return std::nullopt;
  ssl::context tls(ssl::context::tls_server);
  tls.set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                  ssl::context::no_sslv3 | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1);
  error_code error;
  tls.use_certificate_chain(asio::buffer(read_file(options.tls_certificate)), error);
  if (error) fail("{} holds no TLS certificate: {}", options.tls_certificate, error.message());
  tls.use_private_key(asio::buffer(read_file(options.tls_key)), ssl::context::pem, error);
  if (error)
    fail("{} holds no TLS key of {}: {}", options.tls_key, options.tls_certificate,
         error.message());
  return tls;
}

// A piece of a chunked body, and the end of the body in the same write where it is the last.
std::string chunks(const std::string& piece, bool last) {
  std::string bytes;
  if (!piece.empty()) bytes = fmt::format("{:x}\r\n{}\r\n", piece.size(), piece);
  if (last) bytes += "0\r\n\r\n";
  return bytes;
}

// What to answer where no request could be read; nothing where there is nobody to answer, or where
// time ran out: then Beast has closed the connection.
std::optional<ApiError> reading_failed(const error_code& error) {
  if (error == http::error::header_limit)
    return ApiError(431, "the request's headers are too large", "headers_too_large");
  if (error == http::error::body_limit)
    return ApiError(413, "the request's body is too large", "body_too_large");
  if (error == http::error::end_of_stream || error == http::error::partial_message)
    return std::nullopt;
  if (error.category() == make_error_code(http::error::bad_method).category())
    return ApiError(400, "the request is not HTTP: " + error.message(), "bad_request");
  return std::nullopt;
}

}  // namespace

class Session;

struct HttpServer::State {
  State(Api& served, AccessLog* lines, const HttpOptions& wanted)
      : api(served),
        log(lines),
        options(wanted),
        tls(make_tls(wanted)),
        acceptor(asio::make_strand(context)) {}

  void listen();
  asio::awaitable<void> accept_all();
  void stop();
  void leave(Session* session);

  Api& api;
  AccessLog* log;
  const HttpOptions options;
  std::optional<ssl::context> tls;
  asio::io_context context;
  tcp::acceptor acceptor;  // on a strand of its own
  uint16_t port = 0;
  std::vector<std::thread> threads;
  std::atomic<bool> stopping = false;

  mutable std::mutex mutex;
  std::condition_variable left;
  std::set<Session*> sessions;
};

// A connection and the request that it is at.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(HttpServer::State& server, tcp::socket socket)
      : server_(server),
        stream_(std::move(socket), server.tls ? &*server.tls : nullptr),
        news_(stream_.get_executor()) {
    error_code ignored;
    const auto remote = stream_.socket().remote_endpoint(ignored);
    remote_ = ignored ? "-" : remote.address().to_string();
    stream_.socket().set_option(tcp::no_delay(true), ignored);
  }
  ~Session() { server_.leave(this); }

  // `session` keeps itself alive until its connection ends.
  static asio::awaitable<void> run(std::shared_ptr<Session> session) {
    try {
      if (co_await session->shake_hands()) {
        while (co_await session->serve_one()) {
        }
        co_await session->say_goodbye();
      }
    } catch (const std::exception&) {
      // Memory ran out: this connection ends, the others go on.
    }
    session->close();
  }

  // Ends a connection that waits for its next request. Any thread.
  void close_if_idle() {
    asio::post(stream_.get_executor(), [weak = weak_from_this()] {
      const auto session = weak.lock();
      if (session && session->idle_) session->close();
    });
  }
  void close_now() {
    asio::post(stream_.get_executor(), [weak = weak_from_this()] {
      if (const auto session = weak.lock()) {
        session->gone_ = true;
        session->news_.cancel();
        session->close();
      }
    });
  }

  asio::awaitable<void> turn_away() {
    // A handshake is more than a full server gives.
    if (stream_.tls()) co_return;
    Request request;
    request.id = random_id();
    begin_exchange(request);
    Reply reply = error_reply({503, "too many connections", "too_many_connections"});
    keep_alive_ = false;
    co_await write_whole(reply);
    co_await linger();
  }

 private:
  using Parser = http::request_parser<http::string_body>;

  void close() {
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
    stream_.tcp().close();
  }

  asio::awaitable<bool> shake_hands() {
    if (!stream_.tls()) co_return true;
    error_code error;
    auto finished = asio::redirect_error(asio::use_awaitable, error);
    stream_.tcp().expires_after(server_.options.header_timeout);
    co_await stream_.tls()->async_handshake(ssl::stream_base::server, finished);
    co_return !error;
  }
  // Tells a client over TLS that what it has is all.
  asio::awaitable<void> say_goodbye() {
    if (!stream_.tls() || gone_) co_return;
    error_code ignored;
    auto finished = asio::redirect_error(asio::use_awaitable, ignored);
    stream_.tcp().expires_after(std::chrono::seconds(2));
    co_await stream_.tls()->async_shutdown(finished);
  }

  // One request and its response. False: the connection is to end.
  asio::awaitable<bool> serve_one() {
    if (!co_await wait_for_request()) co_return false;
    Parser parser;
    parser.header_limit(server_.options.header_bytes);
    parser.body_limit(server_.options.body_bytes);
    error_code error;
    stream_.tcp().expires_after(server_.options.header_timeout);
    auto finished = asio::redirect_error(asio::use_awaitable, error);
    co_await http::async_read_header(stream_, buffer_, parser, finished);
    Request request;
    request.id = random_id();
    head_only_ = false;
    if (!error || error == http::error::body_limit) read_head(parser, request);
    begin_exchange(request);
    if (error) co_return co_await refuse_unread(request, error);

    if (!parser.is_done()) {
      if (auto refused = server_.api.refuse(request))
        co_return co_await answer_unread(request, std::move(*refused));
      co_await invite_body(parser);
      stream_.tcp().expires_after(server_.options.body_timeout);
      co_await http::async_read(stream_, buffer_, parser, finished);
      if (error) co_return co_await refuse_unread(request, error);
    }
    request.body = std::move(parser.get().body());
    parser.release();

    Reply reply = server_.api.handle(request);
    if (reply.generation)
      co_await write_generation(reply);
    else
      co_await write_whole(reply);
    end_exchange(request, reply);
    co_return keep_alive_ && !gone_;
  }

  asio::awaitable<bool> wait_for_request() {
    if (server_.stopping) co_return false;
    if (buffer_.size() > 0) co_return true;  // sent behind the one before
    idle_ = true;
    error_code error;
    stream_.tcp().expires_after(server_.options.idle_timeout);
    auto finished = asio::redirect_error(asio::use_awaitable, error);
    auto space = buffer_.prepare(4096);
    const size_t count = co_await stream_.async_read_some(space, finished);
    buffer_.commit(count);
    idle_ = false;
    co_return !error;
  }

  void read_head(const Parser& parser, Request& request) {
    const auto& head = parser.get();
    request.method = std::string(head.method_string());
    head_only_ = head.method() == http::verb::head;
    const std::string_view target(head.target().data(), head.target().size());
    request.path = as_utf8(target.substr(0, target.find('?')));
    request.host = as_utf8(head[http::field::host]);
    request.origin = as_utf8(head[http::field::origin]);
    request.wanted_headers = as_utf8(head[http::field::access_control_request_headers]);
    request.authorization = std::string(head[http::field::authorization]);
    request.api_key = std::string(head["x-api-key"]);
    request.id = request_id(head["x-request-id"]);
    keep_alive_ = head.keep_alive();
    version_ = head.version();
  }

  // Clients that ask first ("Expect: 100-continue") wait for this.
  asio::awaitable<void> invite_body(const Parser& parser) {
    if (!beast::iequals(parser.get()[http::field::expect], "100-continue")) co_return;
    http::response<http::empty_body> go_on(http::status::continue_, version_);
    error_code ignored;
    auto finished = asio::redirect_error(asio::use_awaitable, ignored);
    co_await http::async_write(stream_, go_on, finished);
  }

  // Answers before the request was read whole, and ends the connection.
  asio::awaitable<bool> answer_unread(const Request& request, Reply reply) {
    keep_alive_ = false;
    co_await write_whole(reply);
    end_exchange(request, reply);
    co_await linger();
    co_return false;
  }
  asio::awaitable<bool> refuse_unread(const Request& request, error_code error) {
    const auto problem = reading_failed(error);
    if (!problem) co_return false;
    co_return co_await answer_unread(request,
                                     error_reply(*problem, Api::error_shape(request.path)));
  }

  // A client that is still sending would lose the response to a reset: what it sends is dropped for
  // a while.
  asio::awaitable<void> linger() {
    error_code error;
    if (!stream_.tls()) stream_.socket().shutdown(tcp::socket::shutdown_send, error);
    stream_.tcp().expires_after(std::chrono::seconds(2));
    std::vector<char> dropped(64 << 10);
    auto finished = asio::redirect_error(asio::use_awaitable, error);
    auto space = asio::buffer(dropped);
    for (size_t left = size_t{64} << 20; !error && left > dropped.size();)
      left -= co_await stream_.async_read_some(space, finished);
  }

  template <typename Body>
  void fill_head(http::response<Body>& response, const Reply& reply) const {
    response.set(http::field::content_type, reply.content_type);
    response.set("x-request-id", id_);
    for (const auto& [name, value] : reply.headers) response.set(name, value);
    for (const auto& [name, value] : server_.api.sites().response_headers(origin_))
      response.set(name, value);
    response.keep_alive(keep_alive_);
  }

  // False: the client has gone.
  asio::awaitable<bool> write_whole(const Reply& reply) {
    if (server_.stopping) keep_alive_ = false;
    http::response<http::string_body> response(static_cast<http::status>(reply.status), version_);
    fill_head(response, reply);
    if (!head_only_) response.body() = reply.body;
    if (reply.status != 204) response.content_length(reply.body.size());
    error_code error;
    stream_.tcp().expires_after(server_.options.write_timeout);
    auto finished = asio::redirect_error(asio::use_awaitable, error);
    co_await http::async_write(stream_, response, finished);
    if (error) gone_ = true;
    stream_.tcp().expires_never();
    co_return !error;
  }

  asio::awaitable<void> write_generation(Reply& reply) {
    Generation& generation = *reply.generation;
    generation.set_wake([weak = weak_from_this(), executor = stream_.get_executor()] {
      asio::post(executor, [weak] {
        if (const auto session = weak.lock()) {
          session->has_news_ = true;
          session->news_.cancel();
        }
      });
    });
    stream_.tcp().expires_never();
    answering_ = true;
    read_ahead();
    const bool answered =
        generation.streamed() ? co_await write_events(reply) : co_await write_at_end(reply);
    co_await end_reading_ahead();
    generation.set_wake(nullptr);
    log_usage(generation, answered);
    if (answered) co_return;
    reply.status = 499;
    server_.api.metrics().abandoned.add(1);
  }

  Clock::time_point deadline() const {
    const auto limit = server_.options.answer_timeout;
    return limit.count() > 0 ? begin_ + limit : Clock::time_point::max();
  }

  // The next output of the generation; nothing more comes once the client has gone.
  asio::awaitable<Generation::Output> next_output(Generation& generation) {
    for (;;) {
      has_news_ = false;
      Generation::Output output = generation.take();
      if (output.done || !output.body.empty() || gone_) co_return output;
      if (has_news_) continue;
      if (Clock::now() >= deadline())
        co_return generation.give_up(
            {504, "the answer took longer than this server allows", "answer_timeout"});
      error_code ignored;
      news_.expires_at(deadline());
      auto finished = asio::redirect_error(asio::use_awaitable, ignored);
      co_await news_.async_wait(finished);
    }
  }

  // False: the client left before its answer. One that leaves once it has it is as good as any:
  // many do as soon as they have read "[DONE]".
  asio::awaitable<bool> write_at_end(Reply& reply) {
    Generation::Output output;
    while (!output.done && !gone_) output = co_await next_output(*reply.generation);
    if (!output.done) co_return false;
    reply.body = std::move(output.body);
    reply.status = reply.generation->status();
    co_return co_await write_whole(reply);
  }

  asio::awaitable<bool> write_events(Reply& reply) {
    if (server_.stopping) keep_alive_ = false;
    // HTTP/1.0 knows no chunks: there the end of the connection ends the events.
    const bool chunked = version_ >= 11;
    if (!chunked) keep_alive_ = false;
    http::response<http::empty_body> head(static_cast<http::status>(reply.status), version_);
    fill_head(head, reply);
    if (chunked) head.chunked(true);
    http::response_serializer<http::empty_body> serializer(head);
    error_code error;
    auto finished = asio::redirect_error(asio::use_awaitable, error);
    stream_.tcp().expires_after(server_.options.write_timeout);
    co_await http::async_write_header(stream_, serializer, finished);
    Generation::Output output;
    while (!error && !output.done && !gone_) {
      stream_.tcp().expires_never();
      output = co_await next_output(*reply.generation);
      const std::string bytes = chunked ? chunks(output.body, output.done) : std::move(output.body);
      if (bytes.empty()) continue;
      stream_.tcp().expires_after(server_.options.write_timeout);
      co_await asio::async_write(stream_, asio::buffer(bytes), finished);
    }
    if (error) gone_ = true;
    stream_.tcp().expires_never();
    co_return !error && output.done;
  }

  // While an answer is made, what the client sends is read: the end of the connection, which
  // cancels the answer, or its next request, which waits in the buffer.
  void read_ahead() {
    if (buffer_.size() >= most_read_ahead) return;
    reading_ahead_ = true;
    auto space = buffer_.prepare(4096);
    stream_.async_read_some(space, [self = shared_from_this()](error_code error, size_t count) {
      self->buffer_.commit(count);
      self->reading_ahead_ = false;
      if (self->answering_ && !error) return self->read_ahead();
      if (self->answering_) self->gone_ = true;
      self->news_.cancel();
    });
  }
  asio::awaitable<void> end_reading_ahead() {
    answering_ = false;
    error_code ignored;
    stream_.socket().cancel(ignored);
    auto finished = asio::redirect_error(asio::use_awaitable, ignored);
    while (reading_ahead_) {
      news_.expires_at(Clock::time_point::max());
      co_await news_.async_wait(finished);
    }
  }

  void begin_exchange(const Request& request) {
    begin_ = Clock::now();
    id_ = request.id;
    origin_ = request.origin;
    line_ = {};
  }

  void log_usage(const Generation& generation, bool answered) {
    line_.set("prompt_tokens", generation.usage().prompt_tokens);
    line_.set("cached_tokens", generation.usage().cached_tokens);
    line_.set("completion_tokens", generation.usage().completion_tokens);
    line_.set("finish_reason", answered ? generation.finish_reason() : "abandoned");
    line_.set("stream", generation.streamed());
  }

  void end_exchange(const Request& request, const Reply& reply) {
    server_.api.metrics().add_response(Api::route_name(request.path), reply.status);
    if (!server_.log) return;
    json::Object line{{"time", timestamp()},
                      {"request_id", request.id},
                      {"remote", remote_},
                      {"method", request.method},
                      {"path", request.path},
                      {"status", reply.status},
                      {"seconds", std::chrono::duration<double>(Clock::now() - begin_).count()}};
    for (const auto& [name, value] : line_) line.set(name, value);
    server_.log->write(line);
  }

  HttpServer::State& server_;
  static constexpr size_t most_read_ahead = 64 << 10;
  Transport stream_;
  beast::flat_buffer buffer_;
  asio::steady_timer news_;  // cancelled where there is something to look at
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

void HttpServer::State::leave(Session* session) {
  const std::lock_guard lock(mutex);
  sessions.erase(session);
  if (sessions.empty()) left.notify_all();
}

void HttpServer::State::listen() {
  const auto failed = [&](const std::string& why) {
    fail("cannot listen on {}:{}: {}", options.host, options.port, why);
  };
  try {
    tcp::resolver resolver(context);
    const auto found =
        resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive);
    const tcp::endpoint address = found.begin()->endpoint();
    acceptor.open(address.protocol());
    acceptor.set_option(tcp::acceptor::reuse_address(true));
    acceptor.bind(address);
    acceptor.listen(tcp::acceptor::max_listen_connections);
    port = acceptor.local_endpoint().port();
  } catch (const boost::system::system_error& error) {
    failed(error.code().message());
  }
}

asio::awaitable<void> HttpServer::State::accept_all() {
  while (!stopping) {
    const auto strand = asio::make_strand(context);
    tcp::socket socket(strand);
    error_code error;
    auto finished = asio::redirect_error(asio::use_awaitable, error);
    co_await acceptor.async_accept(socket, finished);
    if (stopping) co_return;
    if (error) {
      // Out of file descriptors, most likely: some will come back.
      asio::steady_timer pause(acceptor.get_executor(), std::chrono::milliseconds(50));
      co_await pause.async_wait(finished);
      continue;
    }
    const auto session = std::make_shared<Session>(*this, std::move(socket));
    bool full = false;
    {
      const std::lock_guard lock(mutex);
      full = sessions.size() >= options.most_connections;
      sessions.insert(session.get());
    }
    if (full) {
      auto turn_away = [](std::shared_ptr<Session> extra) -> asio::awaitable<void> {
        co_await extra->turn_away();
      };
      asio::co_spawn(strand, turn_away(session), asio::detached);
    } else {
      asio::co_spawn(strand, Session::run(session), asio::detached);
    }
  }
}

void HttpServer::State::stop() {
  if (stopping.exchange(true)) return;
  asio::post(acceptor.get_executor(), [this] {
    error_code ignored;
    acceptor.close(ignored);
  });
  const std::lock_guard lock(mutex);
  for (Session* session : sessions) session->close_if_idle();
}

HttpServer::HttpServer(Api& api, AccessLog* log, const HttpOptions& options)
    : state_(std::make_unique<State>(api, log, options)) {
  state_->listen();
  asio::co_spawn(state_->acceptor.get_executor(), state_->accept_all(), asio::detached);
  for (int i = 0; i < options.threads; ++i)
    state_->threads.emplace_back([this] { state_->context.run(); });
}

HttpServer::~HttpServer() {
  state_->stop();
  {
    const std::lock_guard lock(state_->mutex);
    for (Session* session : state_->sessions) session->close_now();
  }
  for (std::thread& thread : state_->threads) thread.join();
}

uint16_t HttpServer::port() const {
  return state_->port;
}

void HttpServer::stop() {
  state_->stop();
}

bool HttpServer::wait(std::chrono::milliseconds time) {
  std::unique_lock lock(state_->mutex);
  return state_->left.wait_for(lock, time,
                               [this] { return state_->stopping && state_->sessions.empty(); });
}

size_t HttpServer::connections() const {
  const std::lock_guard lock(state_->mutex);
  return state_->sessions.size();
}

}  // namespace qnext::server
