// /v1/embeddings: inputs of every kind, both encodings, what is refused.
#include <gtest/gtest.h>

#include <cmath>

#include "server/testing/fake_server.h"

namespace qnext::server {
namespace {

using testing::ClientResponse;
using testing::FakeServer;

class EmbeddingRoute : public FakeServer {
 protected:
  void SetUp() override { start({.max_sequences = 2}); }
  json::Value ask(const std::string& fields) const {
    const ClientResponse response = post("/v1/embeddings", "{" + fields + "}");
    EXPECT_EQ(response.status, 200) << response.body;
    return response.json();
  }
  // The vectors of the answer, of length 1.
  static std::vector<std::vector<double>> vectors(const json::Value& answer) {
    std::vector<std::vector<double>> all;
    for (const json::Value& entry : answer.find("data")->as_array()) {
      EXPECT_EQ(entry.find("object")->as_string(), "embedding");
      EXPECT_EQ(entry.find("index")->as_integer(), std::ssize(all));
      std::vector<double>& values = all.emplace_back();
      double squares = 0;
      for (const json::Value& value : entry.find("embedding")->as_array()) {
        values.push_back(value.as_double());
        squares += values.back() * values.back();
      }
      EXPECT_NEAR(squares, 1, 1e-6);
    }
    return all;
  }
  // What they must be, of texts in token ids.
  std::vector<double> expected(const std::vector<int32_t>& tokens) const {
    std::vector<double> sums(static_cast<size_t>(backend->config().hidden_size));
    uint64_t history = 0;
    for (const int32_t token : tokens) {
      history = engine::testing::extend_history(history, token);
      for (size_t i = 0; i < sums.size(); ++i)
        sums[i] += engine::testing::hidden_value(history, static_cast<int64_t>(i));
    }
    double squares = 0;
    for (const double sum : sums) squares += sum * sum;
    for (double& sum : sums) sum /= std::sqrt(squares);
    return sums;
  }
};

TEST_F(EmbeddingRoute, TakesTextsAndTokens) {
  const auto check = [&](const std::string& input, const std::vector<std::vector<int32_t>>& texts) {
    const json::Value answer = ask(R"("model": "fake", "input": )" + input);
    EXPECT_EQ(answer.find("object")->as_string(), "list");
    EXPECT_EQ(answer.find("model")->as_string(), "fake");
    const auto all = vectors(answer);
    ASSERT_EQ(all.size(), texts.size());
    int64_t tokens = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      tokens += std::ssize(texts[i]);
      const std::vector<double> vector = expected(texts[i]);
      for (size_t j = 0; j < vector.size(); ++j) EXPECT_NEAR(all[i].at(j), vector[j], 1e-6);
    }
    EXPECT_EQ(answer.find("usage")->find("prompt_tokens")->as_integer(), tokens);
    EXPECT_EQ(answer.find("usage")->find("total_tokens")->as_integer(), tokens);
  };
  const auto ids = [&](const char* text) { return tokenizer.encode(text); };
  check(R"("abc")", {ids("abc")});
  check(R"(["abc", "a", "b c", "ca ca"])", {ids("abc"), ids("a"), ids("b c"), ids("ca ca")});
  check("[0, 1, 2]", {{0, 1, 2}});
  check("[[0], [3, 2], [1]]", {{0}, {3, 2}, {1}});
  expect_all_free();
}

TEST_F(EmbeddingRoute, Base64HasTheSameBits) {
  const auto vector = vectors(ask(R"("input": "abc", "dimensions": 3)")).at(0);
  const json::Value answer = ask(R"("input": "abc", "encoding_format": "base64")");
  const std::string text = answer.find("data")->as_array()[0].find("embedding")->as_string();
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c));
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count);
  }
  ASSERT_EQ(text.size() % 4, 0u);
  ASSERT_EQ(bytes.size(), vector.size() * sizeof(float));
  for (size_t i = 0; i < vector.size(); ++i) {
    float value = 0;
    std::memcpy(&value, bytes.data() + i * sizeof(float), sizeof(float));
    EXPECT_EQ(value, static_cast<float>(vector[i]));
  }
}

TEST_F(EmbeddingRoute, RefusesByName) {
  const auto refused = [&](const std::string& fields, const std::string& param) {
    const ClientResponse response = post("/v1/embeddings", "{" + fields + "}");
    EXPECT_EQ(response.status, 400) << fields << response.body;
    const json::Value answer = response.json();
    EXPECT_EQ(answer.find("error")->find("param")->as_string(), param) << response.body;
  };
  refused(R"("model": "fake")", "input");
  refused(R"("input": "")", "input");
  refused(R"("input": [])", "input");
  refused(R"("input": [""])", "input");
  refused(R"("input": [9999])", "input");
  refused(R"("input": 3)", "input");
  refused(R"("input": "a", "dimensions": 2)", "dimensions");
  refused(R"("input": "a", "encoding_format": "int8")", "encoding_format");
  refused(R"("input": ")" + std::string(4000, 'a') + "\"", "input");
  std::string many = R"("input": ["a")";
  for (int i = 0; i < 2048; ++i) many += R"(, "a")";
  refused(many + "]", "input");
}

// Far more texts than there are places: they come in turns, and leave places to others.
TEST_F(EmbeddingRoute, ManyTextsComeInTurns) {
  std::string input = R"("input": [[0])";
  for (int i = 1; i < 500; ++i) input += fmt::format(", [{}, {}]", i % 3, i % 4);
  hold = true;
  std::vector<std::vector<double>> all;
  std::thread asking([&] { all = vectors(ask(input + "]")); });
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (thread->load().unfinished < 9 && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  EXPECT_EQ(thread->load().unfinished, 9);  // half of 2 that run and 16 that wait
  hold = false;
  EXPECT_EQ(post("/v1/completions", R"({"prompt": "a"})").status, 200);
  asking.join();
  ASSERT_EQ(all.size(), 500u);
  for (int i = 1; i < 500; ++i) {
    const std::vector<double> vector = expected({i % 3, i % 4});
    for (size_t j = 0; j < vector.size(); ++j)
      ASSERT_NEAR(all[static_cast<size_t>(i)].at(j), vector[j], 1e-6);
  }
  expect_all_free();
}

// A client that leaves takes with it those whose turn has not come.
TEST_F(EmbeddingRoute, WaitingTextsLeaveWithTheirClient) {
  std::string input = R"({"input": [[0])";
  for (int i = 1; i < 500; ++i) input += ", [1]";
  input += "]}";
  hold = true;
  {
    testing::Client client(port());
    client.send(fmt::format("POST /v1/embeddings HTTP/1.1\r\nContent-Length: {}\r\n\r\n{}",
                            input.size(), input));
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (thread->load().unfinished < 9 && std::chrono::steady_clock::now() < until)
      std::this_thread::yield();
  }
  while (metrics.abandoned.value() < 1) std::this_thread::yield();
  hold = false;
  expect_all_free();
  EXPECT_LT(metrics.finished(engine::FinishReason::embedded).value(), 20);
  EXPECT_EQ(post("/v1/embeddings", R"({"input": "a"})").status, 200);
  thread->cancel_all();
}

}  // namespace
}  // namespace qnext::server
