// qnext loadtest against qnext serve, both as processes.
#include <chrono>
#include <thread>

#include "app/testing/certificate.h"
#include "app/testing/serving.h"
#include "server/testing/http_client.h"

namespace qnext::app {
namespace {

using server::testing::Client;
using testing::HasSubstr;

class LoadTests : public Serving {
 protected:
  std::string url(const std::string& scheme = "http") const {
    return scheme + "://127.0.0.1:" + std::to_string(port_);
  }

  json::Value load(std::vector<std::string> more) {
    std::vector<std::string> arguments = {"loadtest", "--json"};
    if (more.front().find("://") == std::string::npos) arguments.push_back(url());
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err << outcome.out;
    EXPECT_EQ(outcome.err, "");
    return json::parse(outcome.out, "report");
  }

  // The value of a gauge or counter without labels.
  int64_t metric(const std::string& name) const {
    Client client(port_);
    const std::string text = "\n" + client.get("/metrics").body;
    const size_t at = text.find("\n" + name + " ");
    if (at == std::string::npos) return -1;
    return std::stoll(text.substr(at + name.size() + 2));
  }
  // Cancelled requests end with the step that runs: soon, not at once.
  int64_t settled(const std::string& name, int64_t wanted) const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (metric(name) != wanted && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return metric(name);
  }
};

int64_t count(const json::Value& report, const char* name) {
  return report.find(name)->as_integer();
}

TEST_F(LoadTests, CountsWhatTheServerMade) {
  serve({});
  const json::Value report = load({"--concurrency", "4", "--requests", "10", "--prompt-tokens",
                                   "20:40", "--generate", "8", "--ignore-eos"});
  EXPECT_EQ(count(report, "finished"), 10);
  EXPECT_EQ(count(report, "failed"), 0);
  EXPECT_EQ(count(report, "completion_tokens"), 80);
  EXPECT_GT(count(report, "prompt_tokens"), 200);
  for (const char* name : {"first_token_seconds", "token_seconds", "request_seconds"})
    EXPECT_EQ(count(*report.find(name), "count"), 10) << name;
  const Outcome text = run({"loadtest", url(), "--requests", "2", "--endpoint", "completions"});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("2 finished, 0 cut off, 0 failed"));
}

TEST_F(LoadTests, ScenariosFindWhatIsCached) {
  serve({});
  const json::Value shared =
      load({"--scenario", "shared-prefix", "--prefix-tokens", "512", "--prompt-tokens", "16",
            "--generate", "4", "--requests", "8", "--concurrency", "1"});
  EXPECT_GT(shared.find("cached_share")->as_double(), 0.5);
  const json::Value turns =
      load({"--scenario", "multi-turn", "--turns", "4", "--prompt-tokens", "200", "--generate", "8",
            "--requests", "4", "--concurrency", "1", "--seed", "9"});
  EXPECT_GT(turns.find("cached_share")->as_double(), 0.4);
  EXPECT_EQ(count(turns, "finished"), 4);
}

TEST_F(LoadTests, UsersMayComeAtRandom) {
  serve({});
  const json::Value report =
      load({"--rate", "20", "--duration", "1", "--prompt-tokens", "8", "--generate", "4"});
  // Poisson with a mean of 20: outside of this once in a million runs.
  EXPECT_GE(count(report, "finished"), 3);
  EXPECT_LE(count(report, "finished"), 48);
  EXPECT_EQ(count(report, "failed"), 0);
}

// The bar of the server: every stream that is not cut off finishes, and nothing is left behind.
TEST_F(LoadTests, AThousandStreamsOfWhichAFifthIsCutOff) {
  serve({"--queue", "1000", "--cache-memory", "0"});
  const int64_t pages = metric("qnext_free_pages");
  const int64_t slots = metric("qnext_free_slots");
  ASSERT_GT(pages, 0);
  ASSERT_GT(slots, 0);
  const json::Value report = load({"--concurrency", "1000", "--requests", "1000", "--cut", "0.2",
                                   "--prompt-tokens", "4:32", "--generate", "16", "--ignore-eos"});
  // On a busy machine several tokens come as one piece, a few times the second half with the first:
  // such an answer is whole before it could be cut off.
  EXPECT_EQ(count(report, "finished") + count(report, "cut"), 1000) << json::write(report);
  EXPECT_LE(count(report, "cut"), 200);
  EXPECT_GE(count(report, "cut"), 100);
  EXPECT_EQ(settled("qnext_running", 0), 0);
  EXPECT_EQ(settled("qnext_waiting", 0), 0);
  EXPECT_EQ(settled("qnext_free_pages", pages), pages);
  EXPECT_EQ(settled("qnext_free_slots", slots), slots);
  EXPECT_EQ(stop(SIGTERM), 0);
}

TEST_F(LoadTests, StreamsOverTls) {
  write_certificate(path("cert"), path("key"));
  serve({"--tls-cert", path("cert"), "--tls-key", path("key"), "--log", path("log")});
  const json::Value report =
      load({url("https"), "--insecure", "--requests", "16", "--concurrency", "8", "--cut", "0.5",
            "--prompt-tokens", "8", "--generate", "600", "--ignore-eos"});
  EXPECT_EQ(count(report, "finished"), 8);
  EXPECT_EQ(count(report, "cut"), 8);
  expect_error(run({"loadtest", url("https")}), "connecting: certificate verify failed");
  expect_error(run({"loadtest", url()}), "no answer");
  // One that never finishes its handshake keeps nobody from the rest.
  Client silent(port_);
  silent.send("\x16\x03");
  EXPECT_EQ(
      count(load({url("https"), "--insecure", "--requests", "2", "--generate", "4"}), "finished"),
      2);
  silent.hang_up();
  EXPECT_EQ(stop(SIGTERM), 0);
  // The server saw which streams broke off.
  const std::string log = read_file(path("log"));
  size_t abandoned = 0;
  for (size_t at = 0; (at = log.find("\"status\": 499", at)) != std::string::npos; ++at)
    ++abandoned;
  EXPECT_EQ(abandoned, 8u);
}

TEST_F(LoadTests, SaysWhyRequestsFail) {
  serve({"--api-key", "secret", "--max-sequences", "1", "--queue", "0"});
  expect_error(run({"loadtest", url()}), "HTTP 401: the API key is missing");
  expect_error(run({"loadtest", url(), "--api-key", "secret", "--model", "other"}),
               "there is no model 'other'");
  const Outcome full = run({"loadtest", url(), "--api-key", "secret", "--concurrency", "8",
                            "--requests", "16", "--generate", "64", "--ignore-eos"});
  EXPECT_EQ(full.status, 1);
  EXPECT_THAT(full.out, HasSubstr("HTTP 429"));
  expect_error(run({"loadtest", "http://127.0.0.1:1"}), "connecting: Connection refused");
  expect_error(run({"loadtest", "http://no.such.host.invalid"}), "cannot be found");
  expect_error(run({"loadtest", url(), "--generate", "5:4"}), "--generate 5:4");
}

}  // namespace
}  // namespace qnext::app
