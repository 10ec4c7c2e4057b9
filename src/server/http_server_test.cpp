// The server as clients see it: HTTP, streams, limits, clients that leave, the end.
#include "server/http_server.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <thread>

#include "base/file.h"
#include "server/testing/fake_server.h"

namespace qnext::server {
namespace {

using testing::Client;
using testing::ClientResponse;
using testing::FakeServer;
using ::testing::HasSubstr;
using testing::post_once;

class HttpServers : public FakeServer {};

std::string text_of(const ClientResponse& response) {
  std::string text;
  for (const json::Value& event : response.events())
    for (const json::Value& choice : event.find("choices")->as_array())
      text += choice.find("text")->as_string();
  return text;
}

TEST_F(HttpServers, OneConnectionServesManyRequests) {
  start({});
  Client client(port());
  EXPECT_EQ(client.get("/health").status, 200);
  for (int i = 1; i < 5; ++i) {
    const ClientResponse whole = client.post(
        "/v1/completions", fmt::format(R"({{"prompt": "abc", "max_tokens": {}}})", 10 * i));
    ASSERT_EQ(whole.status, 200) << whole.body;
    EXPECT_EQ(whole.json().find("choices")->as_array()[0].find("text")->as_string(),
              greedy_text("abc", 10 * i));
    const ClientResponse streamed = client.post(
        "/v1/completions",
        fmt::format(R"({{"prompt": "abc", "max_tokens": {}, "stream": true}})", 10 * i));
    EXPECT_EQ(streamed.status, 200);
    EXPECT_EQ(streamed.headers.at("content-type"), "text/event-stream");
    EXPECT_TRUE(streamed.done());
    EXPECT_EQ(text_of(streamed), greedy_text("abc", 10 * i));
  }
  expect_all_free();
}

TEST_F(HttpServers, RequestsMayFollowEachOtherUnasked) {
  start({});
  Client client(port());
  const std::string body = R"({"prompt": "a", "stream": true})";
  const std::string request = fmt::format(
      "POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
  client.send(request + request + "GET /health HTTP/1.1\r\n\r\n");
  EXPECT_EQ(text_of(client.read_response()), greedy_text("a", 16));
  EXPECT_EQ(text_of(client.read_response()), greedy_text("a", 16));
  EXPECT_EQ(client.read_response().status, 200);
}

TEST_F(HttpServers, OldClientsGetTheirEventsWithoutChunks) {
  start({});
  Client client(port());
  const std::string body = R"({"prompt": "a", "stream": true})";
  client.send(fmt::format("POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}",
                          body.size(), body));
  const ClientResponse response = client.read_response();
  EXPECT_EQ(text_of(response), greedy_text("a", 16));
  EXPECT_FALSE(response.headers.contains("transfer-encoding"));
  EXPECT_TRUE(client.at_end());
}

TEST_F(HttpServers, RequestIdsAreKeptWhereTheyAreHarmless) {
  start({});
  Client client(port());
  EXPECT_EQ(client.get("/health", {{"x-request-id", "my-id.7"}}).headers.at("x-request-id"),
            "my-id.7");
  const auto other = client.get("/health", {{"x-request-id", "a b\"c"}}).headers;
  EXPECT_EQ(other.at("x-request-id").size(), 16u);
  EXPECT_NE(other.at("x-request-id"), client.get("/health").headers.at("x-request-id"));
}

TEST_F(HttpServers, SaysWhatIsWrongWithARequest) {
  testing::FakeServer::Settings settings;
  settings.http.body_bytes = 1000;
  settings.http.header_timeout = std::chrono::seconds(1);
  start(settings);
  const auto answer = [&](const std::string& bytes) {
    Client client(port());
    client.send(bytes);
    const ClientResponse response = client.read_response();
    EXPECT_TRUE(client.at_end()) << bytes.substr(0, 40);
    return response;
  };
  EXPECT_EQ(answer("nonsense\r\n\r\n").status, 400);
  EXPECT_EQ(answer("GET /health HTTP/1.1\r\nx: " + std::string(20000, 'x')).status, 431);
  EXPECT_EQ(answer("POST /v1/completions HTTP/1.1\r\nContent-Length: 1001\r\n\r\n").status, 413);
  EXPECT_EQ(answer("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" +
                   std::string(2000, 'x'))
                .status,
            413);
  EXPECT_EQ(answer("GET /health HT").status, 0);  // time is up
  EXPECT_EQ(answer("POST /nowhere HTTP/1.1\r\nContent-Length: 900\r\n\r\n").status, 404);
  // The engine has never heard of them.
  EXPECT_EQ(metrics.finished(engine::FinishReason::error).value(), 0);
}

TEST_F(HttpServers, ClientsThatAskBeforeTheySendAreInvited) {
  start({});
  Client client(port());
  const std::string body = R"({"prompt": "a"})";
  client.send(fmt::format(
      "POST /v1/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
      body.size()));
  EXPECT_EQ(client.read_response().status, 100);
  client.send(body);
  EXPECT_EQ(client.read_response().status, 200);
}

TEST_F(HttpServers, AClientThatLeavesFreesItsPlace) {
  start({.max_sequences = 2, .queue = 8});
  hold = true;
  std::vector<std::unique_ptr<Client>> clients;
  for (const char* stream : {"true", "false", "true", "false"}) {
    clients.push_back(std::make_unique<Client>(port()));
    const std::string body =
        fmt::format(R"({{"prompt": "a", "max_tokens": 900, "stream": {}}})", stream);
    clients.back()->send(fmt::format(
        "POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}", body.size(), body));
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (thread->load().unfinished < 4 && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  ASSERT_EQ(thread->load().unfinished, 4);
  clients.clear();
  while (metrics.abandoned.value() < 4 && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  hold = false;
  expect_all_free();
  EXPECT_EQ(metrics.finished(engine::FinishReason::cancelled).value(), 4);
}

// Most clients of events let go of the connection when they have read "[DONE]".
TEST_F(HttpServers, AClientThatLeavesWithItsAnswerHasNotAbandonedIt) {
  start({});
  for (int i = 0; i < 100; ++i) {
    Client client(port());
    const std::string body = R"({"prompt": "a", "stream": true})";
    client.send(fmt::format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}",
                            body.size(), body));
    EXPECT_TRUE(client.read_until("[DONE]"));
  }
  server->stop();
  EXPECT_TRUE(server->wait(std::chrono::seconds(30)));
  EXPECT_EQ(metrics.abandoned.value(), 0);
}

TEST_F(HttpServers, AFullQueueIsSaidAtOnce) {
  start({.max_sequences = 1, .queue = 1});
  hold = true;
  Client first(port());
  const std::string body = R"({"prompt": "a", "n": 2, "stream": true})";
  first.send(fmt::format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}",
                         body.size(), body));
  ASSERT_TRUE(first.read_until("200 OK"));
  Client second(port());
  const ClientResponse refused = second.post("/v1/completions", R"({"prompt": "a"})");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_EQ(refused.json().find("error")->find("code")->as_string(), "queue_full");
  hold = false;
  EXPECT_TRUE(first.read_until("[DONE]"));
  EXPECT_EQ(second.post("/v1/completions", R"({"prompt": "a"})").status, 200);
}

TEST_F(HttpServers, TooManyConnectionsAreTurnedAway) {
  testing::FakeServer::Settings settings;
  settings.http.most_connections = 2;
  start(settings);
  Client first(port());
  Client second(port());
  EXPECT_EQ(first.get("/health").status, 200);
  EXPECT_EQ(second.get("/health").status, 200);
  Client third(port());
  EXPECT_EQ(third.read_response().status, 503);
}

// 200 streams of which a fifth is cut off half-way: all others say what they must.
TEST_F(HttpServers, ManyStreamsOfWhichSomeAreCutOff) {
  start({.max_sequences = 32, .queue = 200});
  std::vector<std::thread> threads;
  for (int i = 0; i < 200; ++i) {
    threads.emplace_back([&, i] {
      const std::string prompt = std::string(static_cast<size_t>(1 + i % 7), 'a') + "bc";
      const std::string body =
          fmt::format(R"({{"prompt": "{}", "max_tokens": {}, "stream": true}})", prompt, 100 + i);
      Client client(port());
      if (i % 5 == 0) {
        client.send(fmt::format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}",
                                body.size(), body));
        EXPECT_TRUE(client.read_until("data: "));
        return;
      }
      const ClientResponse response = client.post("/v1/completions", body);
      EXPECT_EQ(response.status, 200);
      EXPECT_TRUE(response.done());
      EXPECT_EQ(text_of(response), greedy_text(prompt, 100 + i));
    });
  }
  for (std::thread& one : threads) one.join();
  expect_all_free();
  server->stop();
  EXPECT_TRUE(server->wait(std::chrono::seconds(30)));
}

TEST_F(HttpServers, StoppingFinishesWhatIsUnderWay) {
  start({});
  hold = true;
  Client idle(port());
  EXPECT_EQ(idle.get("/health").status, 200);
  Client busy(port());
  const std::string body = R"({"prompt": "a", "max_tokens": 300, "stream": true})";
  busy.send(fmt::format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}",
                        body.size(), body));
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (thread->load().unfinished < 1 && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  server->stop();
  EXPECT_TRUE(idle.at_end());
  EXPECT_FALSE(server->wait(std::chrono::milliseconds(20)));
  hold = false;
  const ClientResponse response = busy.read_response();
  EXPECT_TRUE(response.done());
  EXPECT_EQ(text_of(response), greedy_text("a", 300));
  EXPECT_TRUE(busy.at_end());
  EXPECT_TRUE(server->wait(std::chrono::seconds(30)));
  EXPECT_THROW(Client{port()}, Error);
}

TEST_F(HttpServers, CancellingTellsTheClients) {
  start({});
  hold = true;
  Client streamed(port());
  Client whole(port());
  const auto send = [&](Client& client, const std::string& body) {
    client.send(fmt::format("POST /v1/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}",
                            body.size(), body));
  };
  send(streamed, R"({"prompt": "a", "max_tokens": 900, "stream": true})");
  send(whole, R"({"prompt": "a", "max_tokens": 900})");
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (thread->load().unfinished < 2 && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  server->stop();
  thread->cancel_all();
  hold = false;
  EXPECT_THAT(streamed.read_response().body, HasSubstr("server_stopping"));
  EXPECT_EQ(whole.read_response().status, 503);
  EXPECT_TRUE(server->wait(std::chrono::seconds(30)));
  expect_all_free();
}

TEST_F(HttpServers, WritesALineForEachRequest) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("qnext-access-log-" + std::to_string(getpid())))
          .string();
  start({.log = path});
  Client client(port());
  client.get("/health?x=1", {{"x-request-id", "first"}});
  client.post("/v1/completions", R"({"prompt": "abc", "max_tokens": 7, "stream": true})");
  client.get("/nowhere");
  server.reset();
  std::vector<json::Value> lines;
  std::string text = read_file(path);
  for (size_t at = 0, end = 0; (end = text.find('\n', at)) != std::string::npos; at = end + 1)
    lines.push_back(json::parse(text.substr(at, end - at), "line"));
  std::filesystem::remove(path);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].find("request_id")->as_string(), "first");
  EXPECT_EQ(lines[0].find("path")->as_string(), "/health");
  EXPECT_EQ(lines[0].find("status")->as_integer(), 200);
  EXPECT_EQ(lines[1].find("completion_tokens")->as_integer(), 7);
  EXPECT_EQ(lines[1].find("finish_reason")->as_string(), "length");
  EXPECT_EQ(lines[2].find("status")->as_integer(), 404);
}

TEST_F(HttpServers, APortThatIsTakenIsSaid) {
  start({});
  try {
    HttpServer other(*api, nullptr, {.port = port()});
    FAIL() << "two servers on one port";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("cannot listen on 127.0.0.1"));
  }
}

}  // namespace
}  // namespace qnext::server
