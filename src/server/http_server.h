// HTTP/1.1 around an Api, with or without TLS: connections, limits, server-sent events.
//
// A few threads serve all connections, each a coroutine that waits without a thread. A client that
// goes away is noticed while its answer is made, and its answer is cancelled. A connection that is
// too slow to send a request or to take a response is closed; the engine never waits for one.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace qnext::server {

class AccessLog;
class Api;

struct HttpOptions {
  std::string host = "127.0.0.1";  // a name or an address
  uint16_t port = 8000;            // 0: any that is free
  int threads = 2;
  size_t most_connections = 4096;         // more are answered 503 and closed
  uint32_t header_bytes = 16 << 10;       // more: 431
  size_t body_bytes = size_t{32} << 20;   // more: 413
  std::chrono::seconds idle_timeout{75};  // between requests
  std::chrono::seconds header_timeout{15};
  std::chrono::seconds body_timeout{60};
  std::chrono::seconds write_timeout{60};  // for each piece
  std::chrono::seconds answer_timeout{0};  // from a request to its answer's end; 0: any
  // PEM files: the certificate with those that vouch for it, and its key. Empty: no TLS.
  std::string tls_certificate = {};
  std::string tls_key = {};
};

class HttpServer {
 public:
  // Listens from here on. `log` may be null; it and `api` must outlive the server. Throws Error
  // where the address cannot be had or the files of TLS are none.
  HttpServer(Api& api, AccessLog* log, const HttpOptions& options);
  // Ends all connections, those with requests too.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;
  // Takes no more connections or requests; requests under way are answered.
  void stop();
  // Whether, after stop(), the last connection ended within this time.
  bool wait(std::chrono::milliseconds time);
  size_t connections() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qnext::server
