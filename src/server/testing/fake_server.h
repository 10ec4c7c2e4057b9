// For tests: a server over the fake backend, whose answers are known, and its parts.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "engine/testing/fake_backend.h"
#include "engine/testing/reference_answer.h"
#include "engine/testing/tiny_tokenizer.h"
#include "server/access_log.h"
#include "server/api.h"
#include "server/http_server.h"
#include "server/testing/http_client.h"

namespace qnext::server::testing {

class FakeServer : public ::testing::Test {
 protected:
  struct Settings {
    int32_t max_sequences = 4;
    int32_t queue = 16;
    int64_t context = 1000;
    std::string api_key = {};
    size_t cache_bytes = 0;
    HttpOptions http = {.port = 0};
    std::string log = {};
    SiteOptions sites = {};
  };

  void start(const Settings& settings) {
    engine::testing::FakeOptions fake{.vocabulary = engine::testing::tiny_vocabulary,
                                      .context = settings.context};
    // A step takes as long as the test wants.
    fake.seconds = [this](const backend::Batch&) {
      while (hold) std::this_thread::sleep_for(std::chrono::microseconds(100));
      return 0.0;
    };
    backend = std::make_unique<engine::testing::FakeBackend>(fake);
    core = std::make_unique<engine::Engine>(
        *backend, &tokenizer,
        engine::EngineOptions{.max_sequences = settings.max_sequences,
                              .cache_bytes = settings.cache_bytes});
    thread = std::make_unique<EngineThread>(*core, settings.queue, metrics);
    model.id = "fake";
    model.tokenizer = &tokenizer;
    api = std::make_unique<Api>(model, *thread, metrics, settings.api_key,
                                AllowedSites(settings.sites));
    if (!settings.log.empty()) log = std::make_unique<AccessLog>(settings.log);
    server = std::make_unique<HttpServer>(*api, log.get(), settings.http);
  }
  ~FakeServer() override { hold = false; }

  uint16_t port() const { return server->port(); }
  ClientResponse post(const std::string& path, const std::string& body) const {
    return post_once(port(), path, body);
  }
  // A template that shows what it was given.
  void use_template(const std::string& source) {
    chat_template_ =
        std::make_unique<ModelChatTemplate>(ChatTemplate(source), std::nullopt, json::Object{});
    model.chat_template = chat_template_.get();
  }
  // What a greedy completion must say.
  std::string greedy_text(const std::string& prompt, int64_t max_tokens) const {
    engine::GenerationRequest request;
    request.prompt = tokenizer.encode(prompt);
    request.max_tokens = max_tokens;
    return engine::testing::reference_answer(request,
                                             {.vocabulary = engine::testing::tiny_vocabulary,
                                              .context = backend->options.context,
                                              .eos_tokens = {},
                                              .tokenizer = &tokenizer})
        .text;
  }
  void expect_all_free() const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    ServerLoad load = thread->load();
    const auto all_free = [&] {
      return load.unfinished == 0 && load.engine.running == 0 && load.engine.waiting == 0 &&
             load.engine.free_pages == core->options().pages &&
             load.engine.free_slots == core->options().slots;
    };
    while (!all_free() && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      load = thread->load();
    }
    EXPECT_EQ(load.unfinished, 0);
    EXPECT_EQ(load.engine.running, 0);
    EXPECT_EQ(load.engine.waiting, 0);
    EXPECT_EQ(load.engine.free_pages, core->options().pages);
    EXPECT_EQ(load.engine.free_slots, core->options().slots);
  }

  std::atomic<bool> hold = false;
  Tokenizer tokenizer = engine::testing::tiny_tokenizer();
  ServedModel model;
  Metrics metrics;
  std::unique_ptr<engine::testing::FakeBackend> backend;
  std::unique_ptr<engine::Engine> core;
  std::unique_ptr<EngineThread> thread;
  std::unique_ptr<Api> api;
  std::unique_ptr<AccessLog> log;
  std::unique_ptr<HttpServer> server;

 private:
  std::unique_ptr<ModelChatTemplate> chat_template_;
};

}  // namespace qnext::server::testing
