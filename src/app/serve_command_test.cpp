// qnext serve as a process: the line it prints, what it answers, how it ends.
#include <chrono>
#include <csignal>
#include <thread>

#include "app/testing/certificate.h"
#include "app/testing/serving.h"
#include "base/error.h"
#include "server/testing/http_client.h"

namespace qnext::app {
namespace {

using server::testing::Client;
using server::testing::ClientResponse;
using testing::HasSubstr;

TEST_F(Serving, SaysWhatGenerateSays) {
  serve({"--log", path("log")});
  const json::Value expected = json::parse_file(bundled + "/expected.json");
  Client client(port_);
  for (const json::Value& reference : expected.as_array()) {
    const std::string prompt = reference.find("prompt")->as_string();
    const json::Object request{
        {"prompt", prompt}, {"max_tokens", 64}, {"temperature", 0}, {"echo", true}};
    const ClientResponse response = client.post("/v1/completions", json::write(request));
    ASSERT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(response.json().find("choices")->as_array()[0].find("text")->as_string(),
              reference.find("greedy_text")->as_string());
  }
  const ClientResponse chat =
      client.post("/v1/chat/completions",
                  R"({"messages": [{"role": "user", "content": "ROMEO:"}], "max_tokens": 8})");
  EXPECT_EQ(chat.status, 200) << chat.body;
  client.hang_up();
  EXPECT_EQ(stop(SIGTERM), 0);
  const std::string log = read_file(path("log"));
  EXPECT_EQ(std::ranges::count(log, '\n'), 5);
}

// The recurrent state of the second turn comes from the first one's cache.
TEST_F(Serving, TellsWhatTheCacheKnew) {
  serve({});
  Client client(port_);
  const auto ask = [&](const std::string& prompt) {
    const json::Object request{{"prompt", prompt}, {"max_tokens", 40}, {"temperature", 0}};
    const json::Value answer = client.post("/v1/completions", json::write(request)).json();
    return std::pair(
        answer.find("choices")->as_array()[0].find("text")->as_string(),
        answer.find("usage")->find("prompt_tokens_details")->find("cached_tokens")->as_integer());
  };
  std::string prompt = "ROMEO:\n";
  for (int i = 0; i < 120; ++i) prompt += "But soft, what light through yonder window breaks?\n";
  const auto first = ask(prompt);
  EXPECT_EQ(first.second, 0);
  EXPECT_GT(ask(prompt + first.first + "\nJULIET:\n").second, 500);
}

TEST_F(Serving, ASignalLetsAnswersFinishAndASecondDoesNot) {
  serve({});
  const std::string body =
      R"({"prompt": "ROMEO:", "n": 16, "max_tokens": 4000, "ignore_eos": true, "stream": true})";
  Client client(port_);
  client.send("POST /v1/completions HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n\r\n" + body);
  ASSERT_TRUE(client.read_until("data: "));
  kill(child_, SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_THROW(Client{port_}, Error);
  kill(child_, SIGINT);
  EXPECT_TRUE(client.read_until("server_stopping"));
  int status = 0;
  waitpid(child_, &status, 0);
  child_ = -1;
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_F(Serving, TheKeyMayComeFromAFile) {
  write_file(path("key"), "secret\n");
  serve({"--api-key-file", path("key"), "--model-name", "tiny-shakespeare"});
  Client client(port_);
  EXPECT_EQ(client.get("/v1/models").status, 401);
  EXPECT_EQ(client.get("/v1/models", {{"Authorization", "Bearer secret"}}).status, 200);
  EXPECT_EQ(stop(SIGINT), 0);
}

TEST_F(Serving, OptionsMayComeFromAFile) {
  write_file(path("key"), "secret\n");
  write_file(path("config"),
             "# a comment\nmax-body = 1\nqueue = 3\nmodel-name = \"other\"\n"
             "api-key-file = \"" +
                 path("key") + "\"\ncache-memory = \"1MiB\"\n");
  serve({"--config", path("config"), "--model-name", "tiny-shakespeare"});
  Client client(port_);
  EXPECT_EQ(client.get("/v1/models").status, 401);
  const ClientResponse models = client.get("/v1/models", {{"Authorization", "Bearer secret"}});
  EXPECT_THAT(models.body, HasSubstr("tiny-shakespeare"));
  const std::string large((1 << 20) + 1, ' ');
  EXPECT_EQ(client.post("/v1/completions", large, {{"Authorization", "Bearer secret"}}).status,
            413);
}

TEST_F(Serving, NamesAndSitesMayBeAllowed) {
  write_file(path("config"),
             "allow-host = [\"box\", \"box.example\"]\nallow-origin = \"https://a.example\"\n");
  serve({"--config", path("config"), "--allow-origin", "https://b.example", "--allow-origin",
         "https://c.example"});
  const auto status = [&](const std::string& headers) {
    Client client(port_);
    client.send("GET /v1/models HTTP/1.1\r\n" + headers + "Connection: close\r\n\r\n");
    return client.read_response().status;
  };
  EXPECT_EQ(status("Host: box\r\n"), 200);
  EXPECT_EQ(status("Host: box.example:80\r\n"), 200);
  EXPECT_EQ(status("Host: other.example\r\n"), 421);
  EXPECT_EQ(status("Host: box\r\nOrigin: https://a.example\r\n"), 403);
  EXPECT_EQ(status("Host: box\r\nOrigin: https://b.example\r\n"), 200);
  EXPECT_EQ(status("Host: box\r\nOrigin: https://c.example\r\n"), 200);
  expect_error(run({"serve", "--port", "0", "--allow-origin", "a.example"}), "is no origin");
}

TEST_F(Serving, TheExampleOfAFileIsOne) {
  serve({"--config", QNEXT_SOURCE_DIR "/packaging/serve.toml"});
  EXPECT_EQ(Client(port_).get("/health").status, 200);
}

TEST_F(Serving, SaysWhatIsWrongInAConfigurationFile) {
  const auto expect = [&](const std::string& text, const std::string& error, int status = 1) {
    write_file(path("config"), text);
    expect_error(run({"serve", "--config", path("config")}), error, status);
  };
  expect("quee = 3\n", "config: there is no option 'quee'; did you mean 'queue'?");
  expect("[other]\nport = 3\n", "config: there is no section 'other' but [serve]");
  expect("[serve]\nport = 70000\n", "--port", 2);
  expect("port = \"x\"\n", "--port", 2);
  expect("api-key = \"a\"\napi-key-file = \"b\"\n", "--api-key", 2);
  expect_error(run({"serve", "--config", "/no/such/file"}), "/no/such/file");
}

TEST_F(Serving, SaysWhatIsWrongWithTheFilesOfTls) {
  write_certificate(path("cert"), path("key"));
  write_certificate(path("cert2"), path("key2"));
  write_file(path("none"), "nothing\n");
  const auto expect = [&](const std::string& cert, const std::string& key,
                          const std::string& error) {
    expect_error(run({"serve", "--port", "0", "--tls-cert", path(cert), "--tls-key", path(key)}),
                 error);
  };
  expect("absent", "key", "absent");
  expect("none", "key", "none holds no TLS certificate");
  expect("cert", "none", "none holds no TLS key of");
  expect("cert", "key2", "key2 holds no TLS key of");
  expect_error(run({"serve", "--tls-cert", path("cert")}), "--tls-key", 2);
}

// Neither a client that sends nothing nor one that sends a byte now and then keeps its place.
TEST_F(Serving, EndsWhatTakesTooLong) {
  serve({"--request-timeout", "1", "--answer-timeout", "2"});
  Client slow(port_);
  slow.send("POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n");
  const auto begin = std::chrono::steady_clock::now();
  std::thread trickle([&] {
    for (int i = 0; i < 15; ++i) {
      slow.send("x");
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  EXPECT_TRUE(slow.at_end());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  trickle.join();
  const std::string fields =
      R"("prompt": "ROMEO:", "n": 64, "max_tokens": 4000, "ignore_eos": true)";
  Client client(port_);
  const ClientResponse whole = client.post("/v1/completions", "{" + fields + "}");
  EXPECT_EQ(whole.status, 504) << whole.body;
  EXPECT_THAT(whole.body, HasSubstr("answer_timeout"));
  const ClientResponse stream =
      client.post("/v1/completions", "{" + fields + R"(, "stream": true})");
  EXPECT_EQ(stream.status, 200);
  EXPECT_THAT(stream.body, HasSubstr("answer_timeout"));
}

TEST_F(Serving, SaysWhatItCannotDo) {
  write_file(path("key"), "\n");
  expect_error(run({"serve", "--api-key-file", path("key")}), "holds no key");
  expect_error(run({"serve", "--host", "no.such.host.invalid"}), "cannot listen on no.such.host");
  expect_error(run({"serve", "--port", "70000"}), "--port", 2);
  expect_error(run({"serve", "--log", "/no/such/folder/log"}), "cannot be opened");
}

}  // namespace
}  // namespace qnext::app
