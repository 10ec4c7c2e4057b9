// For tests: a server over a model that likes to write a given text.
//
// It writes as if it copied: of the text that follows the longest end of its answer that the script
// holds too, any token is likely, the longer the more; what a mask keeps it from it may write
// behind that. Whatever else must come is drawn from a hash. Behind the script's end it wants to
// stop.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "engine/testing/fake_backend.h"
#include "server/api.h"
#include "server/grammars.h"
#include "server/http_server.h"
#include "server/testing/http_client.h"

namespace qnext::server::testing {

class ScriptedModel {
 public:
  ScriptedModel(const Tokenizer& tokenizer, int32_t vocabulary)
      : tokenizer_(tokenizer), vocabulary_(vocabulary) {
    for (int32_t id = 0; id < std::min(vocabulary, tokenizer.vocabulary_size()); ++id)
      if (!tokenizer.is_special(id) && !tokenizer.token_bytes(id).empty())
        tokens_.emplace(tokenizer.token_bytes(id), id);
    for (int32_t i = 0; i < 2 * vocabulary; ++i)
      noise_.push_back(engine::testing::hidden_value(0, i));
  }

  // `script` of the assistant's turn.
  std::vector<float> logits(std::span<const int32_t> history, const std::string& script) const {
    // Another piece of the noise for each token, so that nothing repeats itself for ever.
    const auto begin = noise_.begin() + std::ssize(history) * 7919 % vocabulary_;
    std::vector<float> out(begin, begin + vocabulary_);
    const std::string rest = script.substr(place(said(history), script));
    for (size_t length = 1; length <= rest.size(); ++length)
      if (const auto found = tokens_.find(rest.substr(0, length)); found != tokens_.end())
        out[static_cast<size_t>(found->second)] = 10 + static_cast<float>(length);
    if (rest.empty()) out[static_cast<size_t>(*tokenizer_.eos_token_id())] = 10;
    return out;
  }

 private:
  std::string said(std::span<const int32_t> history) const {
    constexpr std::string_view turn = "<|im_start|>assistant\n";
    const std::string all = tokenizer_.decode(history);
    return all.substr(all.rfind(turn) + turn.size());
  }
  // Where the script goes on.
  static size_t place(const std::string& text, const std::string& script) {
    constexpr std::string_view call_end = "</tool_call>";
    if (script.starts_with(text)) return text.size();
    if (text.find(call_end) != std::string::npos && script.find(call_end) == std::string::npos)
      return script.size();
    for (size_t length = std::min<size_t>(text.size(), 60); length > 0; --length)
      if (const size_t at = script.rfind(text.substr(text.size() - length));
          at != std::string::npos)
        return at + length;
    return script.size();
  }

  const Tokenizer& tokenizer_;
  int32_t vocabulary_;
  std::vector<float> noise_;
  std::unordered_map<std::string, int32_t> tokens_;
};

class ScriptedServer : public ::testing::Test {
 protected:
  static constexpr int32_t vocabulary = 151'936;

  // `chat_template`: a name of tests/data/chat-templates.
  void start(const std::string& chat_template) {
    chat_template_ = std::make_unique<ModelChatTemplate>(
        ChatTemplate(
            read_file(QNEXT_SOURCE_DIR "/tests/data/chat-templates/" + chat_template + ".jinja")),
        std::nullopt, json::Object{});
    backend = std::make_unique<engine::testing::FakeBackend>(
        engine::testing::FakeOptions{.vocabulary = vocabulary,
                                     .page_tokens = 64,
                                     .context = 4096,
                                     .eos_token_ids = {*tokenizer().eos_token_id()},
                                     .seconds =
                                         [this](const backend::Batch&) {
                                           std::this_thread::sleep_for(step_time);
                                           return 0.0;
                                         },
                                     .logits =
                                         [this](std::span<const int32_t> history) {
                                           return scripted().logits(history, script);
                                         }});
    core = std::make_unique<engine::Engine>(
        *backend, &tokenizer(),
        engine::EngineOptions{.max_speculation = 2, .adapt_speculation = false});
    thread = std::make_unique<EngineThread>(*core, 16, metrics);
    grammars = std::make_unique<Grammars>(tokenizer(), vocabulary, *core->options().stop_tokens);
    model = {.id = "scripted",
             .tokenizer = &tokenizer(),
             .chat_template = chat_template_.get(),
             .grammars = grammars.get()};
    api = std::make_unique<Api>(model, *thread, metrics, "");
    server = std::make_unique<HttpServer>(*api, nullptr, HttpOptions{.port = 0});
  }
  ClientResponse post(const std::string& path, const json::Value& body) const {
    return post_once(server->port(), path, json::write(body));
  }

  // Between requests: what answers want to say, and how long a step takes.
  std::string script;
  std::chrono::milliseconds step_time{0};
  ServedModel model;
  Metrics metrics;
  std::unique_ptr<engine::testing::FakeBackend> backend;
  std::unique_ptr<engine::Engine> core;
  std::unique_ptr<EngineThread> thread;
  std::unique_ptr<Grammars> grammars;
  std::unique_ptr<Api> api;
  std::unique_ptr<HttpServer> server;

 private:
  static const Tokenizer& tokenizer() {
    static const Tokenizer loaded = Tokenizer::load(QNEXT_QWEN3_TOKENIZER);
    return loaded;
  }
  static const ScriptedModel& scripted() {
    static const ScriptedModel made(tokenizer(), vocabulary);
    return made;
  }

  std::unique_ptr<ModelChatTemplate> chat_template_;
};

}  // namespace qnext::server::testing
