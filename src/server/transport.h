// A connection with or without TLS as one type, for the server's sessions and the client of
// app/load_connection.cpp. It takes Beast's and Asio's reads and writes. One read and one write may
// be under way at a time.
#pragma once

#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/ssl.hpp>
#include <memory>
#include <optional>
#include <utility>

namespace qnext::server {

class Transport {
 public:
  using Tcp = boost::beast::tcp_stream;
  using Tls = boost::beast::ssl_stream<Tcp>;
  using error_code = boost::system::error_code;
  using executor_type = Tcp::executor_type;

  // A null `tls` is a plain connection; else it must outlive this.
  Transport(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context* tls) {
    if (tls)
      tls_ = std::make_unique<Tls>(std::move(socket), *tls);
    else
      tcp_.emplace(std::move(socket));
  }

  // Time limits and the socket itself.
  Tcp& tcp() { return tls_ ? tls_->next_layer() : *tcp_; }
  boost::asio::ip::tcp::socket& socket() { return tcp().socket(); }
  executor_type get_executor() { return tcp().get_executor(); }
  // Null where the connection is plain.
  Tls* tls() { return tls_.get(); }

  template <typename Buffers, typename Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return boost::asio::async_initiate<Token, void(error_code, size_t)>(
        [this](auto handler, const Buffers& into) {
          if (tls_)
            tls_->async_read_some(into, std::move(handler));
          else
            tcp_->async_read_some(into, std::move(handler));
        },
        token, buffers);
  }
  template <typename Buffers, typename Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return boost::asio::async_initiate<Token, void(error_code, size_t)>(
        [this](auto handler, const Buffers& from) {
          if (tls_)
            tls_->async_write_some(from, std::move(handler));
          else
            tcp_->async_write_some(from, std::move(handler));
        },
        token, buffers);
  }

 private:
  std::optional<Tcp> tcp_;
  std::unique_ptr<Tls> tls_;
};

}  // namespace qnext::server
