#include "server/testing/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"

namespace qnext::server::testing {

std::vector<json::Value> ClientResponse::events() const {
  std::vector<json::Value> values;
  for (size_t at = 0; at < body.size();) {
    std::string name;
    if (body.compare(at, 7, "event: ") == 0) {
      const size_t line_end = body.find('\n', at);
      name = body.substr(at + 7, line_end - at - 7);
      at = line_end + 1;
    }
    const size_t end = body.find("\n\n", at);
    if (end == std::string::npos || body.compare(at, 6, "data: ") != 0)
      fail("these are no events: {}", body);
    const std::string data = body.substr(at + 6, end - at - 6);
    if (data != "[DONE]") values.push_back(json::parse(data, "event"));
    if (!name.empty() && values.back().find("type")->as_string() != name)
      fail("event {} says it is {}", name, data);
    at = end + 2;
  }
  return values;
}

Client::Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  timeval patience{.tv_sec = 60, .tv_usec = 0};
  setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    fail("no connection to port {}", port);
}

Client::~Client() {
  hang_up();
}

void Client::hang_up() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

void Client::send(const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = ::send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return;  // the server has hung up; it may have said why
    sent += static_cast<size_t>(count);
  }
}

bool Client::fill() {
  char bytes[16384];
  const ssize_t count = recv(socket_, bytes, sizeof(bytes), 0);
  if (count <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(count));
  return true;
}

bool Client::at_end() {
  return !fill();
}

bool Client::read_until(const std::string& text) {
  while (buffer_.find(text) == std::string::npos)
    if (!fill()) return false;
  return true;
}

// Without its end; empty where the connection has ended.
std::string Client::line() {
  size_t end = 0;
  while ((end = buffer_.find("\r\n")) == std::string::npos)
    if (!fill()) return {};
  std::string text = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return text;
}

ClientResponse Client::read_response() {
  ClientResponse response;
  const std::string status = line();
  if (status.size() < 12) return response;
  response.status = std::stoi(status.substr(9, 3));
  for (std::string header = line(); !header.empty(); header = line()) {
    const size_t colon = header.find(": ");
    std::string name = header.substr(0, colon);
    std::ranges::transform(name, name.begin(), [](char c) { return std::tolower(c); });
    response.headers[name] = header.substr(colon + 2);
  }
  if (response.status == 100) return response;
  const auto take = [&](size_t count) {
    while (buffer_.size() < count)
      if (!fill()) count = buffer_.size();
    response.body += buffer_.substr(0, count);
    buffer_.erase(0, count);
  };
  if (response.headers.contains("content-length")) {
    take(std::stoul(response.headers["content-length"]));
  } else if (response.headers.contains("transfer-encoding")) {
    for (std::string size = line(); !size.empty(); size = line()) {
      const size_t count = std::stoul(size, nullptr, 16);
      take(count);
      line();
      if (count == 0) break;
    }
  } else {
    while (fill()) {
    }
    take(buffer_.size());
  }
  return response;
}

ClientResponse Client::get(const std::string& path, const Headers& headers) {
  return ask("GET", path, headers);
}

ClientResponse Client::ask(const std::string& method, const std::string& path,
                           const Headers& headers) {
  std::string head = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n";
  for (const auto& [name, value] : headers) head += name + ": " + value + "\r\n";
  send(head + "\r\n");
  return read_response();
}

ClientResponse Client::post(const std::string& path, const std::string& body,
                            const Headers& headers) {
  std::string head =
      "POST " + path + " HTTP/1.1\r\nHost: localhost\r\n" +
      "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  for (const auto& [name, value] : headers) head += name + ": " + value + "\r\n";
  send(head + "\r\n" + body);
  return read_response();
}

ClientResponse post_once(uint16_t port, const std::string& path, const std::string& body) {
  Client client(port);
  return client.post(path, body);
}

}  // namespace qnext::server::testing
