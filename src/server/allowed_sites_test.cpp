#include "server/allowed_sites.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "server/testing/fake_server.h"

namespace qnext::server {
namespace {

using testing::Client;
using testing::ClientResponse;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

int status(const AllowedSites& sites, std::string_view host, std::string_view origin = {}) {
  const auto problem = sites.refuse(host, origin);
  return problem ? problem->status() : 200;
}

TEST(AllowedSites, AnswersByItsOwnNamesOnly) {
  const AllowedSites sites({.listens_on = "Here.example", .hosts = {"there.example", "fe80::1"}});
  for (const char* host :
       {"", "localhost", "LocalHost:8000", "localhost.", "127.0.0.1:8000", "[::1]:8000", "[::1]",
        "here.example:1", "there.example", "THERE.example.:80", "[fe80::1]:9"})
    EXPECT_EQ(status(sites, host), 200) << host;
  for (const char* host :
       {"evil.example", "evil.example:8000", "localhost.evil.example", "xlocalhost", "127.0.0.2",
        "192.168.0.7:8000", "127.0.0.1.evil.example", "[::2]", "::1", ":8000", "localhost:1:2",
        "there.example/", " localhost", "\xff"})
    EXPECT_EQ(status(sites, host), 421) << host;
}

// A name can be made to point anywhere; an address is where it says.
TEST(AllowedSites, AServerOnAllAddressesAnswersByAnyAddress) {
  for (const char* all : {"0.0.0.0", "::"}) {
    const AllowedSites sites({.listens_on = all});
    for (const char* host : {"192.168.0.7:8000", "10.0.0.1", "[fe80::1]:8000", "localhost"})
      EXPECT_EQ(status(sites, host), 200) << host;
    for (const char* host : {"box:8000", "1.2.3", "1.2.3.4.example", "[fe80::x]"})
      EXPECT_EQ(status(sites, host), 421) << host;
  }
}

TEST(AllowedSites, PagesOfOthersAreRefused) {
  const AllowedSites sites({.hosts = {"proxy"}, .origins = {"https://Friend.example:443"}});
  EXPECT_EQ(status(sites, "localhost:8000", "http://localhost:8000"), 200);
  EXPECT_EQ(status(sites, "localhost", "http://localhost:80"), 200);
  EXPECT_EQ(status(sites, "proxy", "https://proxy"), 200);
  EXPECT_EQ(status(sites, "proxy:443", "https://proxy"), 200);
  EXPECT_EQ(status(sites, "localhost:8000", "https://friend.example"), 200);
  for (const char* origin :
       {"http://localhost:8001", "http://localhost", "http://127.0.0.1:8000", "null", "nonsense",
        "http://evil.example", "http://friend.example", "https://friend.example:444",
        "https://friend.example.evil.example", "http://evil@localhost:8000", "://localhost:8000",
        "http://localhost:8000/", "\xff"})
    EXPECT_EQ(status(sites, "localhost:8000", origin), 403) << origin;
  EXPECT_THAT(sites.refuse("localhost", "http://evil.example")->what(),
              HasSubstr("--allow-origin http://evil.example"));
  EXPECT_THAT(sites.refuse("evil.example:8000", "")->what(),
              HasSubstr("--allow-host evil.example,"));
}

TEST(AllowedSites, NamedOriginsMayRead) {
  const AllowedSites none({});
  EXPECT_TRUE(none.response_headers("https://friend.example").empty());
  EXPECT_TRUE(none.preflight_headers("https://friend.example", "POST", "").empty());
  const AllowedSites sites({.origins = {"https://friend.example"}});
  EXPECT_THAT(sites.response_headers("https://evil.example"),
              UnorderedElementsAre(Pair("vary", "Origin")));
  EXPECT_THAT(sites.response_headers("https://friend.example"),
              UnorderedElementsAre(Pair("vary", "Origin"),
                                   Pair("access-control-allow-origin", "https://friend.example"),
                                   Pair("access-control-expose-headers", ::testing::_)));
  EXPECT_TRUE(sites.preflight_headers("https://evil.example", "POST", "x").empty());
  EXPECT_THAT(sites.preflight_headers("https://friend.example", "GET, POST", "authorization, x-a"),
              UnorderedElementsAre(Pair("access-control-allow-methods", "GET, POST"),
                                   Pair("access-control-max-age", "600"),
                                   Pair("access-control-allow-headers", "authorization, x-a")));
  EXPECT_EQ(sites.preflight_headers("https://friend.example", "GET", "a\r\nb: c").size(), 2u);
  const AllowedSites any({.origins = {"*"}});
  EXPECT_EQ(status(any, "localhost", "http://evil.example"), 200);
  EXPECT_EQ(status(any, "localhost", "null"), 200);
  EXPECT_EQ(any.response_headers("null").size(), 3u);
}

TEST(AllowedSites, WhatIsNoNameOrOriginIsSaid) {
  for (const char* host : {"", "name:80", "http://name", "*", "a,b"})
    EXPECT_THROW(AllowedSites({.hosts = {host}}), Error) << host;
  for (const char* origin : {"", "name", "https://", "https://name/", "https://*", "null"})
    EXPECT_THROW(AllowedSites({.origins = {origin}}), Error) << origin;
}

class GuardedServers : public testing::FakeServer {
 protected:
  ClientResponse ask(const std::string& line, const std::string& headers,
                     const std::string& body = {}) const {
    Client client(port());
    client.send(fmt::format("{} HTTP/1.1\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n{}",
                            line, headers, body.size(), body));
    return client.read_response();
  }
};

TEST_F(GuardedServers, WithoutAKeyOtherSitesAreKeptOut) {
  start({});
  const std::string body = R"({"prompt": "a", "max_tokens": 2})";
  const std::string completions = "POST /v1/completions";
  EXPECT_EQ(ask(completions, "Host: localhost:1\r\n", body).status, 200);
  EXPECT_EQ(ask(completions, "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n", body).status, 200);
  const ClientResponse rebound = ask(completions, "Host: evil.example\r\n", body);
  EXPECT_EQ(rebound.status, 421);
  EXPECT_EQ(rebound.json().find("error")->find("code")->as_string(), "wrong_host");
  const ClientResponse foreign =
      ask("POST /v1/messages", "Host: localhost\r\nOrigin: https://evil.example\r\n", body);
  EXPECT_EQ(foreign.status, 403);
  EXPECT_EQ(foreign.json().find("type")->as_string(), "error");
  for (const char* line : {"GET /", "GET /metrics", "GET /v1/models", "OPTIONS /v1/completions",
                           "DELETE /v1/responses/x", "GET /nowhere"})
    EXPECT_EQ(ask(line, "Host: evil.example\r\n").status, 421) << line;
  EXPECT_EQ(ask("GET /health", "Host: whatever\r\n").status, 200);
}

TEST_F(GuardedServers, TheKeyIsEnoughWhereThereIsOne) {
  start({.api_key = "secret"});
  const std::string key = "Authorization: Bearer secret\r\n";
  EXPECT_EQ(ask("GET /v1/models", "Host: other\r\nOrigin: https://a.example\r\n" + key).status,
            200);
  EXPECT_EQ(ask("GET /v1/models", "Host: localhost\r\n").status, 401);
}

TEST_F(GuardedServers, AllowedPagesGetTheirHeaders) {
  start({.api_key = "secret", .sites = {.origins = {"https://friend.example"}}});
  const std::string origin = "Host: localhost\r\nOrigin: https://friend.example\r\n";
  const ClientResponse asked =
      ask("OPTIONS /v1/completions",
          origin +
              "Access-Control-Request-Method: POST\r\n"
              "Access-Control-Request-Headers: authorization,x-stainless-os\r\n");
  EXPECT_EQ(asked.status, 204);
  EXPECT_EQ(asked.headers.at("access-control-allow-origin"), "https://friend.example");
  EXPECT_EQ(asked.headers.at("access-control-allow-methods"), "POST");
  EXPECT_EQ(asked.headers.at("access-control-allow-headers"), "authorization,x-stainless-os");
  // Errors and streams are to be read too.
  const std::string key = "Authorization: Bearer secret\r\n";
  const std::string body = R"({"prompt": "a", "max_tokens": 2, "stream": true})";
  for (const ClientResponse& response :
       {ask("POST /v1/completions", origin + key, body), ask("POST /v1/completions", origin, body),
        ask("GET /nowhere", origin)}) {
    EXPECT_EQ(response.headers.at("access-control-allow-origin"), "https://friend.example")
        << response.body;
    EXPECT_EQ(response.headers.at("vary"), "Origin");
  }
  const ClientResponse other = ask(
      "POST /v1/completions", "Host: localhost\r\nOrigin: https://evil.example\r\n" + key, body);
  EXPECT_EQ(other.status, 200);
  EXPECT_FALSE(other.headers.contains("access-control-allow-origin"));
}

}  // namespace
}  // namespace qnext::server
