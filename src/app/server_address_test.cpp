#include "app/server_address.h"

#include <gmock/gmock.h>

#include <vector>

#include "base/error.h"

namespace qnext::app {
namespace {

using testing::ElementsAre;

TEST(ServerUrls, NameHostPortAndPath) {
  const auto parts = [](const char* url) {
    const ServerAddress address = parse_server_url(url);
    return std::vector<std::string>{address.tls ? "tls" : "plain", address.host, address.port,
                                    address.base};
  };
  EXPECT_THAT(parts("http://127.0.0.1:8000"), ElementsAre("plain", "127.0.0.1", "8000", "/v1"));
  EXPECT_THAT(parts("https://a.example/v1/"), ElementsAre("tls", "a.example", "443", "/v1"));
  EXPECT_THAT(parts("localhost:80/api"), ElementsAre("plain", "localhost", "80", "/api"));
  EXPECT_THAT(parts("http://[::1]:8000"), ElementsAre("plain", "::1", "8000", "/v1"));
  EXPECT_THAT(parts("http://[::1]"), ElementsAre("plain", "::1", "80", "/v1"));
  const auto authority = [](const char* url) { return parse_server_url(url).authority(); };
  EXPECT_EQ(authority("http://127.0.0.1:8000"), "127.0.0.1:8000");
  EXPECT_EQ(authority("https://a.example/v1/"), "a.example");
  EXPECT_EQ(authority("https://a.example:80"), "a.example:80");
  EXPECT_EQ(authority("http://[::1]:8000"), "[::1]:8000");
  EXPECT_EQ(authority("http://[::1]"), "[::1]");
  for (const char* wrong :
       {"", "ftp://a", "http://", "http://a:b", "http://a:123456", "http://a b"})
    EXPECT_THROW(parse_server_url(wrong), Error) << wrong;
}

}  // namespace
}  // namespace qnext::app
