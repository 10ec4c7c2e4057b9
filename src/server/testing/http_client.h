// A client for tests: blocking sockets, one request at a time.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace qnext::server::testing {

struct ClientResponse {
  int status = 0;                              // 0: the connection ended before a response
  std::map<std::string, std::string> headers;  // by name in lower case
  std::string body;                            // chunks put together
  json::Value json() const { return json::parse(body, "body"); }
  // The values of the events, "[DONE]" left out. An event that has a name must name it in its data
  // too, as "type".
  std::vector<json::Value> events() const;
  bool done() const { return body.ends_with("data: [DONE]\n\n"); }
};

using Headers = std::vector<std::pair<std::string, std::string>>;

// A connection to 127.0.0.1.
class Client {
 public:
  explicit Client(uint16_t port);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  ClientResponse get(const std::string& path, const Headers& headers = {});
  ClientResponse post(const std::string& path, const std::string& body,
                      const Headers& headers = {});
  // A request of any method, without a body.
  ClientResponse ask(const std::string& method, const std::string& path,
                     const Headers& headers = {});

  // The parts of that, for tests of what goes wrong.
  void send(const std::string& bytes);
  ClientResponse read_response();
  // Reads until `text` has come or the connection ended.
  bool read_until(const std::string& text);
  // Whether the server ended the connection.
  bool at_end();
  void hang_up();

 private:
  bool fill();
  std::string line();

  int socket_;
  std::string buffer_;
};

// One request on a connection of its own.
ClientResponse post_once(uint16_t port, const std::string& path, const std::string& body);

}  // namespace qnext::server::testing
