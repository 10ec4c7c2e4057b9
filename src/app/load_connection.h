// A load test's connection to a server, with or without TLS: a request, and its response piece by
// piece. What HTTP needs of Boost.Beast is behind it.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>

#include "app/load_client.h"

namespace qnext::app {

// Why a request failed: in few words, the same for all of its kind.
struct Failure {
  std::string what;
};

// The server as all connections see it: its addresses, and what TLS needs. Throws Error where its
// name is not known. `target` must outlive it.
class LoadServer {
 public:
  explicit LoadServer(const LoadTarget& target);
  ~LoadServer();

 private:
  friend class LoadConnection;
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

// One connection, made when first needed and used for request after request.
class LoadConnection {
 public:
  // Both must outlive it.
  LoadConnection(boost::asio::io_context& context, const LoadServer& server);
  ~LoadConnection();

  // Sends `body` to `path` (an empty one: a GET) and gives each piece of the response's body to
  // `take` together with the status, until it ends or `take` has had enough (false); the latter
  // ends the connection. Returns the status; throws Failure. One exchange at a time.
  using Take = std::function<bool(int status, const std::string& piece)>;
  boost::asio::awaitable<int> exchange(std::string path, std::string body, Take take);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qnext::app
