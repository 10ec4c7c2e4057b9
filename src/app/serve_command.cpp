// qnext serve: the model for many clients at once, over HTTP.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <memory>

#include "app/api_key.h"
#include "app/command.h"
#include "app/config_file.h"
#include "app/file_limit.h"
#include "app/fingerprint.h"
#include "app/interrupt.h"
#include "app/model_files.h"
#include "app/options.h"
#include "app/server_address.h"
#include "app/terminal.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/engine.h"
#include "server/access_log.h"
#include "server/api.h"
#include "server/grammars.h"
#include "server/http_server.h"

namespace qnext::app {
namespace {

struct ServeOptions {
  std::string model;
  std::string model_name;
  std::string template_file;
  std::string api_key;
  std::string api_key_file;
  std::string log;
  server::HttpOptions http;
  std::vector<std::string> hosts;
  std::vector<std::string> origins;
  int64_t body_mebibytes = 32;
  int64_t request_seconds = 60;
  int64_t idle_seconds = 75;
  int64_t answer_seconds = 0;
  int32_t max_sequences = 16;
  int32_t queue = 256;
  int64_t kv_tokens = 0;
  size_t swap_bytes = size_t{4} << 30;
  MachineOptions machine;
  AnswerOptions answer;
};

// KV pages for so many tokens of each sequence, where nothing else is asked for: all sequences need
// not be long at once, and those that do not fit wait.
constexpr int64_t usual_tokens = 8192;

constexpr const char* examples =
    "  qnext serve\n"
    "  qnext serve --model ~/models/Qwen3-Next-80B-A3B-Instruct --quantize q4_0 --context 32768\n"
    "  qnext serve --host 0.0.0.0 --api-key-file key --tls-cert cert.pem --tls-key key.pem\n"
    "  qnext serve --config /etc/qnext/serve.toml\n"
    "  curl http://127.0.0.1:8000/v1/completions -d '{\"prompt\": \"ROMEO:\", \"max_tokens\": "
    "40}'\n"
    "A browser finds a chat page at http://127.0.0.1:8000. OpenAI's clients work with the base "
    "URL\n"
    "http://127.0.0.1:8000/v1. Ctrl-C stops taking requests and finishes those under way; a "
    "second\n"
    "one ends them too.";

std::string served_name(const ServeOptions& options, const ModelFiles& files) {
  if (!options.model_name.empty()) return options.model_name;
  std::filesystem::path path(files.path());
  if (!path.has_filename()) path = path.parent_path();
  return files.source.is_gguf() ? path.stem() : path.filename();
}

server::HttpOptions http_options(const ServeOptions& options) {
  server::HttpOptions http = options.http;
  http.body_bytes = static_cast<size_t>(options.body_mebibytes) << 20;
  http.body_timeout = std::chrono::seconds(options.request_seconds);
  http.header_timeout = std::min(http.header_timeout, http.body_timeout);
  http.idle_timeout = std::chrono::seconds(options.idle_seconds);
  http.answer_timeout = std::chrono::seconds(options.answer_seconds);
  return http;
}

ModelChatTemplate choose_template(const ServeOptions& options, const ModelFiles& files) {
  if (!options.template_file.empty())
    return {ChatTemplate(read_file(options.template_file)), std::nullopt, {}};
  auto own = files.source.chat_template();
  return own ? std::move(*own) : transcript_template();
}

engine::EngineOptions engine_options(const ServeOptions& options, const ModelFiles& files,
                                     const backend::Backend& backend) {
  engine::EngineOptions engine = options.answer.engine_options(files.stop_tokens());
  engine.max_sequences = options.max_sequences;
  engine.swap_bytes = options.swap_bytes;
  const int64_t context =
      engine.max_context > 0 ? engine.max_context : files.config.context_length();
  int64_t tokens = options.kv_tokens;
  if (tokens == 0) {
    const int64_t each = std::min(context, usual_tokens);
    tokens = std::max(context, each * options.max_sequences);
  }
  const int64_t page_tokens = backend.capabilities().page_tokens;
  engine.pages =
      static_cast<int32_t>(std::min((tokens + page_tokens - 1) / page_tokens, int64_t{1} << 30));
  return engine;
}

// Until all is over: the first signal stops the server, the second what it still does.
void run_until_stopped(server::HttpServer& http, server::EngineThread& engine) {
  const StopSignals signals;
  int seen = 0;
  while (!http.wait(std::chrono::milliseconds(100))) {
    const int count = signals.count();
    if (count > seen && seen == 0) http.stop();
    if (count > 1 && seen < 2) engine.cancel_all();
    seen = count;
  }
}

int serve(const ServeOptions& options) {
  raise_file_limit();
  const ModelFiles files(options.model);
  const std::string api_key = read_api_key(options.api_key, options.api_key_file);
  const server::AllowedSites sites({options.http.host, options.hosts, options.origins});
  const Tokenizer tokenizer = load_tokenizer(files);
  const ModelChatTemplate chat_template = choose_template(options, files);
  std::unique_ptr<server::AccessLog> log;
  if (!options.log.empty()) log = std::make_unique<server::AccessLog>(options.log);
  const auto backend = load_backend(files, options.machine, options.answer.speculate > 0);
  engine::EngineOptions plan = engine_options(options, files, *backend);
  if (!plan.cache_folder.empty())
    plan.cache_fingerprint = fingerprint(files, options.machine, backend->capabilities());
  engine::Engine engine(*backend, &tokenizer, plan);

  server::Grammars grammars(tokenizer, static_cast<int32_t>(backend->config().vocabulary_size),
                            *engine.options().stop_tokens);
  const server::ServedModel model{.id = served_name(options, files),
                                  .tokenizer = &tokenizer,
                                  .chat_template = &chat_template,
                                  .sampling = SamplingOptions{}.resolve(files.generation),
                                  .speculate = options.answer.speculate,
                                  .created = static_cast<int64_t>(std::time(nullptr)),
                                  .grammars = &grammars};
  server::Metrics metrics;
  server::EngineThread thread(engine, options.queue, metrics);
  server::Api api(model, thread, metrics, api_key, sites);
  server::HttpServer http(api, log.get(), http_options(options));
  const bool tls = !options.http.tls_certificate.empty();
  const ServerAddress address{tls, options.http.host, std::to_string(http.port()), ""};
  write_output(
      fmt::format("{} at {}://{}\n", model.id, tls ? "https" : "http", address.authority()));
  run_until_stopped(http, thread);
  return exit_status::success;
}

CLI::Validator between(int64_t least, int64_t most) {
  return CLI::Range(least, most).description("");
}

void add_listening(CLI::App& command, ServeOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help, const char* type) {
    return command.add_option(name, value, help)->type_name(type)->group("Server");
  };
  add("--host", options.http.host, "address to listen on [127.0.0.1: this computer only]", "NAME");
  add("--port", options.http.port, "port; 0: any that is free [8000]", "N")
      ->check(between(0, 65535));
  CLI::Option* key = add("--api-key", options.api_key, "clients must send this key [none]", "KEY");
  add("--api-key-file", options.api_key_file, "the same, from a file's first line", "FILE")
      ->excludes(key);
  add("--allow-host", options.hosts,
      "without a key: another name to be called by (repeatable) [--host, localhost]", "NAME")
      ->allow_extra_args(false);
  add("--allow-origin", options.origins,
      "let pages of this site use the API from a browser (repeatable; *: any) [none]", "ORIGIN")
      ->allow_extra_args(false);
  CLI::Option* certificate = add("--tls-cert", options.http.tls_certificate,
                                 "HTTPS: PEM file of the certificate and its chain", "FILE");
  CLI::Option* secret =
      add("--tls-key", options.http.tls_key, "and PEM file of its key", "FILE")->needs(certificate);
  certificate->needs(secret);
  add("--model-name", options.model_name, "what clients call the model [its file's name]", "NAME");
  add("--chat-template", options.template_file, "Jinja file in place of the model's own", "FILE");
  add("--log", options.log, "a line of JSON for each request; -: standard error [none]", "FILE");
}

void add_capacity(CLI::App& command, ServeOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->type_name("N")->group("Capacity");
  };
  add("--max-sequences", options.max_sequences, "answers made at once; more wait [16]")
      ->check(between(1, 4096));
  add("--queue", options.queue, "requests that may wait; more are refused (429) [256]")
      ->check(between(0, 1 << 20));
  add("--kv-tokens", options.kv_tokens,
      "tokens of all sequences together [8192 each, at least one --context]")
      ->check(between(1, int64_t{1} << 40));
  add("--swap-memory", options.swap_bytes,
      "for answers that pause while those are too few; 0: they start anew [4 GiB]")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(false).description(""));
}

void add_limits(CLI::App& command, ServeOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->type_name("N")->group("Limits");
  };
  constexpr int64_t day = 86400;
  add("--max-connections", options.http.most_connections, "more are turned away (503) [4096]")
      ->check(between(1, 1 << 20));
  add("--max-body", options.body_mebibytes, "MiB of a request; more are refused (413) [32]")
      ->check(between(1, 1 << 14));
  add("--request-timeout", options.request_seconds,
      "seconds for a client to send its request, 15 of them for its headers [60]")
      ->check(between(1, day));
  add("--idle-timeout", options.idle_seconds, "seconds that a connection may idle [75]")
      ->check(between(1, day));
  add("--answer-timeout", options.answer_seconds, "seconds for an answer; 0: any [0]")
      ->check(between(0, day));
}

}  // namespace

void register_serve(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App& command =
      add_command(app, "serve", "Serve a model: a chat page, and OpenAI's API", examples);
  add_config_option(command);
  add_model_option(command, options->model);
  add_listening(command, *options);
  add_capacity(command, *options);
  add_limits(command, *options);
  add_context_options(command, options->answer);
  add_machine_options(command, options->machine);
  options->answer.cache_bytes = size_t{4} << 30;
  add_cache_options(command, options->answer);
  on_run(command, [options] { return serve(*options); });
}

}  // namespace qnext::app
