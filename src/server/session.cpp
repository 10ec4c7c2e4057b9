// All that is read goes through async_read_some and all that is written through write(): each kind
// of asynchronous operation costs the compiler seconds.
#include "server/session.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "server/access_log.h"
#include "server/feed_parser.h"
#include "server/random_id.h"
#include "server/wire.h"
#include "text/utf8.h"

namespace qnext::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
using tcp = asio::ip::tcp;
using boost::system::error_code;

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

Session::Session(const SessionContext& context, tcp::socket socket,
                 std::function<void(Session*)> left)
    : context_(context),
      left_(std::move(left)),
      stream_(std::move(socket), context.tls),
      news_(stream_.get_executor()) {
  error_code ignored;
  const auto remote = stream_.socket().remote_endpoint(ignored);
  remote_ = ignored ? "-" : remote.address().to_string();
  stream_.socket().set_option(tcp::no_delay(true), ignored);
}

Session::~Session() {
  left_(this);
}

asio::awaitable<void> Session::run(std::shared_ptr<Session> session) {
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

asio::awaitable<void> Session::turn_away(std::shared_ptr<Session> session) {
  // A handshake is more than a full server gives.
  if (session->stream_.tls()) co_return;
  Request request;
  request.id = random_id();
  session->begin_exchange(request);
  const Reply reply = error_reply({503, "too many connections", "too_many_connections"});
  session->keep_alive_ = false;
  co_await session->write_whole(reply);
  co_await session->linger();
}

void Session::close_if_idle() {
  asio::post(stream_.get_executor(), [weak = weak_from_this()] {
    const auto session = weak.lock();
    if (session && session->idle_) session->close();
  });
}

void Session::close_now() {
  asio::post(stream_.get_executor(), [weak = weak_from_this()] {
    if (const auto session = weak.lock()) {
      session->gone_ = true;
      session->news_.cancel();
      session->close();
    }
  });
}

void Session::close() {
  error_code ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
  stream_.tcp().close();
}

asio::awaitable<bool> Session::shake_hands() {
  if (!stream_.tls()) co_return true;
  error_code error;
  auto finished = asio::redirect_error(asio::use_awaitable, error);
  stream_.tcp().expires_after(context_.options.header_timeout);
  co_await stream_.tls()->async_handshake(ssl::stream_base::server, finished);
  co_return !error;
}

// Tells a client over TLS that what it has is all.
asio::awaitable<void> Session::say_goodbye() {
  if (!stream_.tls() || gone_) co_return;
  error_code ignored;
  auto finished = asio::redirect_error(asio::use_awaitable, ignored);
  stream_.tcp().expires_after(std::chrono::seconds(2));
  co_await stream_.tls()->async_shutdown(finished);
}

asio::awaitable<bool> Session::serve_one() {
  if (!co_await wait_for_request()) co_return false;
  Parser parser;
  parser.header_limit(context_.options.header_bytes);
  parser.body_limit(context_.options.body_bytes);
  stream_.tcp().expires_after(context_.options.header_timeout);
  error_code error = co_await read(parser, false);
  Request request;
  request.id = random_id();
  head_only_ = false;
  if (!error || error == http::error::body_limit) read_head(parser, request);
  begin_exchange(request);
  if (error) co_return co_await refuse_unread(request, error);

  if (!parser.is_done()) {
    if (auto refused = context_.api.refuse(request))
      co_return co_await answer_unread(request, std::move(*refused));
    co_await invite_body(parser);
    stream_.tcp().expires_after(context_.options.body_timeout);
    error = co_await read(parser, true);
    if (error) co_return co_await refuse_unread(request, error);
  }
  request.body = std::move(parser.get().body());
  parser.release();

  Reply reply = context_.api.handle(request);
  if (reply.generation)
    co_await write_generation(reply);
  else
    co_await write_whole(reply);
  end_exchange(request, reply);
  co_return keep_alive_ && !gone_;
}

asio::awaitable<bool> Session::wait_for_request() {
  if (context_.stopping) co_return false;
  if (buffer_.size() > 0) co_return true;  // sent behind the one before
  idle_ = true;
  stream_.tcp().expires_after(context_.options.idle_timeout);
  const error_code error = co_await read_more();
  idle_ = false;
  co_return !error;
}

asio::awaitable<Session::error_code> Session::read_more() {
  error_code error;
  auto finished = asio::redirect_error(asio::use_awaitable, error);
  const asio::mutable_buffer space = buffer_.prepare(read_bytes);
  const size_t count = co_await stream_.async_read_some(space, finished);
  buffer_.commit(count);
  co_return error;
}

asio::awaitable<Session::error_code> Session::read(Parser& parser, bool whole) {
  parser.eager(whole);
  const auto is_read = [&] { return whole ? parser.is_done() : parser.is_header_done(); };
  error_code error;
  while (!error && !is_read()) {
    const bool wants_more = feed_parser(parser, buffer_, error);
    if (wants_more && !is_read()) error = co_await read_more();
  }
  co_return error;
}

void Session::read_head(const Parser& parser, Request& request) {
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
asio::awaitable<void> Session::invite_body(const Parser& parser) {
  if (!beast::iequals(parser.get()[http::field::expect], "100-continue")) co_return;
  co_await write("HTTP/1.1 100 Continue\r\n\r\n");
}

// Answers before the request was read whole, and ends the connection.
asio::awaitable<bool> Session::answer_unread(const Request& request, Reply reply) {
  keep_alive_ = false;
  co_await write_whole(reply);
  end_exchange(request, reply);
  co_await linger();
  co_return false;
}

asio::awaitable<bool> Session::refuse_unread(const Request& request, error_code error) {
  const auto problem = reading_failed(error);
  if (!problem) co_return false;
  co_return co_await answer_unread(request, error_reply(*problem, Api::error_shape(request.path)));
}

// A client that is still sending would lose the response to a reset: what it sends is dropped for
// a while.
asio::awaitable<void> Session::linger() {
  error_code error;
  if (!stream_.tls()) stream_.socket().shutdown(tcp::socket::shutdown_send, error);
  stream_.tcp().expires_after(std::chrono::seconds(2));
  error = {};
  for (size_t dropped = 0; !error && dropped < most_dropped;) {
    error = co_await read_more();
    dropped += buffer_.size();
    buffer_.consume(buffer_.size());
  }
}

asio::awaitable<bool> Session::write(const std::string& bytes) {
  stream_.tcp().expires_after(context_.options.write_timeout);
  error_code error;
  auto finished = asio::redirect_error(asio::use_awaitable, error);
  co_await asio::async_write(stream_, asio::const_buffer(bytes.data(), bytes.size()), finished);
  stream_.tcp().expires_never();
  if (error) gone_ = true;
  co_return !error;
}

std::string Session::head_of(const Reply& reply, std::optional<uint64_t> content_length) const {
  return head_text(reply, {.version = version_,
                           .keep_alive = keep_alive_,
                           .request_id = id_,
                           .headers = context_.api.sites().response_headers(origin_),
                           .content_length = content_length});
}

asio::awaitable<bool> Session::write_whole(const Reply& reply) {
  if (context_.stopping) keep_alive_ = false;
  std::string bytes = head_of(reply, reply.body.size());
  if (!head_only_) bytes += reply.body;
  co_return co_await write(bytes);
}

asio::awaitable<void> Session::write_generation(Reply& reply) {
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
  reply.generation.reset();
  reply.status = 499;
  context_.api.metrics().abandoned.add(1);
}

Session::Clock::time_point Session::deadline() const {
  const auto limit = context_.options.answer_timeout;
  return limit.count() > 0 ? begin_ + limit : Clock::time_point::max();
}

// The next output of the generation; nothing more comes once the client has gone.
asio::awaitable<Generation::Output> Session::next_output(Generation& generation) {
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

asio::awaitable<bool> Session::write_at_end(Reply& reply) {
  Generation::Output output;
  while (!output.done && !gone_) output = co_await next_output(*reply.generation);
  if (!output.done) co_return false;
  reply.body = std::move(output.body);
  reply.status = reply.generation->status();
  co_return co_await write_whole(reply);
}

asio::awaitable<bool> Session::write_events(Reply& reply) {
  if (context_.stopping) keep_alive_ = false;
  // HTTP/1.0 knows no chunks: there the end of the connection ends the events.
  const bool chunked = version_ >= 11;
  if (!chunked) keep_alive_ = false;
  bool written = co_await write(head_of(reply, std::nullopt));
  Generation::Output output;
  while (written && !output.done && !gone_) {
    output = co_await next_output(*reply.generation);
    const std::string bytes =
        chunked ? chunk_text(output.body, output.done) : std::move(output.body);
    if (!bytes.empty()) written = co_await write(bytes);
  }
  co_return written&& output.done;
}

// While an answer is made, what the client sends is read: the end of the connection, which
// cancels the answer, or its next request, which waits in the buffer.
void Session::read_ahead() {
  if (buffer_.size() >= most_read_ahead) return;
  reading_ahead_ = true;
  const asio::mutable_buffer space = buffer_.prepare(read_bytes);
  stream_.async_read_some(space, [self = shared_from_this()](error_code error, size_t count) {
    self->buffer_.commit(count);
    self->reading_ahead_ = false;
    if (self->answering_ && !error) return self->read_ahead();
    if (self->answering_) self->gone_ = true;
    self->news_.cancel();
  });
}

asio::awaitable<void> Session::end_reading_ahead() {
  answering_ = false;
  error_code ignored;
  stream_.socket().cancel(ignored);
  auto finished = asio::redirect_error(asio::use_awaitable, ignored);
  while (reading_ahead_) {
    news_.expires_at(Clock::time_point::max());
    co_await news_.async_wait(finished);
  }
}

void Session::begin_exchange(const Request& request) {
  begin_ = Clock::now();
  id_ = request.id;
  origin_ = request.origin;
  line_ = {};
}

void Session::log_usage(const Generation& generation, bool answered) {
  line_.set("prompt_tokens", generation.usage().prompt_tokens);
  line_.set("cached_tokens", generation.usage().cached_tokens);
  line_.set("completion_tokens", generation.usage().completion_tokens);
  line_.set("finish_reason", answered ? generation.finish_reason() : "abandoned");
  line_.set("stream", generation.streamed());
}

void Session::end_exchange(const Request& request, const Reply& reply) {
  context_.api.metrics().add_response(Api::route_name(request.path), reply.status);
  if (!context_.log) return;
  json::Object line{{"time", timestamp()},
                    {"request_id", request.id},
                    {"remote", remote_},
                    {"method", request.method},
                    {"path", request.path},
                    {"status", reply.status},
                    {"seconds", std::chrono::duration<double>(Clock::now() - begin_).count()}};
  for (const auto& [name, value] : line_) line.set(name, value);
  context_.log->write(line);
}

}  // namespace qnext::server
