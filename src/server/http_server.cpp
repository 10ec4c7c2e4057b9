#include "server/http_server.h"

#include <atomic>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "server/session.h"

namespace qnext::server {
namespace {

namespace asio = boost::asio;
namespace ssl = asio::ssl;
using tcp = asio::ip::tcp;
using boost::system::error_code;

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

}  // namespace

struct HttpServer::State {
  State(Api& served, AccessLog* lines, const HttpOptions& wanted)
      : options(wanted),
        tls(make_tls(wanted)),
        shared{served, lines, options, tls ? &*tls : nullptr, stopping},
        acceptor(asio::make_strand(context)) {}

  void listen();
  asio::awaitable<void> accept_all();
  void stop();
  void leave(Session* session);

  const HttpOptions options;
  std::optional<ssl::context> tls;
  std::atomic<bool> stopping = false;
  const SessionContext shared;
  asio::io_context context;
  tcp::acceptor acceptor;  // on a strand of its own
  uint16_t port = 0;
  std::vector<std::thread> threads;

  mutable std::mutex mutex;
  std::condition_variable left;
  std::set<Session*> sessions;
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
    const auto session = std::make_shared<Session>(shared, std::move(socket),
                                                   [this](Session* ended) { leave(ended); });
    bool full = false;
    {
      const std::lock_guard lock(mutex);
      full = sessions.size() >= options.most_connections;
      sessions.insert(session.get());
    }
    asio::co_spawn(strand, full ? Session::turn_away(session) : Session::run(session),
                   asio::detached);
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
