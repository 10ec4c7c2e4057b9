// qnext loadtest: how a server of OpenAI's API does under load, ours or another.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "app/api_key.h"
#include "app/command.h"
#include "app/file_limit.h"
#include "app/interrupt.h"
#include "app/load_client.h"
#include "app/load_report.h"
#include "app/load_scenario.h"
#include "app/terminal.h"
#include "app/units.h"
#include "base/error.h"

namespace qnext::app {
namespace {

struct CommandOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string endpoint = "chat";
  std::string scenario = "random";
  std::string prompt = "128";
  std::string generate = "64";
  std::string api_key_file;
  LoadTarget target;
  LoadPlan plan;
  ScenarioOptions scenarios;
  bool json = false;
};

constexpr const char* examples =
    "  qnext loadtest http://127.0.0.1:8000 --concurrency 64 --requests 1000\n"
    "  qnext loadtest http://127.0.0.1:8000 --rate 5 --duration 60 --generate 32:256\n"
    "  qnext loadtest https://example.com/v1 --scenario multi-turn --turns 10 --api-key-file key\n"
    "Drives any server of OpenAI's API; every answer is streamed. Lengths of prompts are in "
    "tokens\n"
    "of the server, as measured by one request before the test.";

constexpr std::pair<const char*, Scenario> scenario_names[] = {
    {"random", Scenario::random},
    {"shared-prefix", Scenario::shared_prefix},
    {"multi-turn", Scenario::multi_turn}};

// What a server said of a request that it refused, on one line.
std::string refusal(const HttpAnswer& answer) {
  try {
    const json::Value body = json::parse(answer.body, "answer");
    if (const json::Value* error = body.find("error"))
      if (const json::Value* text = error->find("message"); text && text->is_string())
        return fmt::format("HTTP {}: {}", answer.status, text->as_string());
  } catch (const Error&) {
    // No JSON: the status says enough.
  }
  return fmt::format("HTTP {}", answer.status);
}

HttpAnswer ask(const LoadTarget& target, const std::string& path, const std::string& body = {}) {
  HttpAnswer answer = request_once(target, path, body);
  if (answer.status != 200) fail("{}{} answers {}", target.address.base, path, refusal(answer));
  return answer;
}

std::string first_model(const LoadTarget& target) {
  const json::Value list = json::parse(ask(target, "/models").body, "the list of models");
  const json::Value* data = list.find("data");
  if (!data || !data->is_array() || data->as_array().empty())
    fail("the server lists no models: name one with --model");
  const json::Value* id = data->as_array().front().find("id");
  if (!id || !id->is_string()) fail("the server's first model has no name: give --model");
  return id->as_string();
}

// From how many tokens a prompt of known length was; 1 where the server does not say.
double measure_words_per_token(const CommandOptions& options) {
  constexpr int64_t words = 200;
  const HttpAnswer answer =
      ask(options.target, options.plan.path, probe_body(options.scenarios, words));
  // Of the events only one has numbers here.
  const std::string name = "\"prompt_tokens\":";
  const size_t at = answer.body.rfind(name);
  if (at == std::string::npos) return 1;
  const int64_t tokens = std::atoll(answer.body.c_str() + at + name.size());
  return tokens > 0 ? static_cast<double>(words) / static_cast<double>(tokens) : 1;
}

LoadRun run_watched(const CommandOptions& options, ScenarioSource& source) {
  const InterruptScope interrupt;
  const bool shown = is_terminal(STDERR_FILENO);
  const auto watch = [&](const LoadProgress& progress) {
    if (shown) {
      std::string line = fmt::format(
          "{}: {} under way, {} ended, {} failed, {} tokens/s", seconds_text(progress.seconds),
          progress.under_way, grouped_text(progress.ended), grouped_text(progress.failed),
          rate_text(static_cast<double>(progress.pieces) / progress.seconds));
      line.resize(std::min(line.size(), static_cast<size_t>(terminal_columns(STDERR_FILENO) - 1)));
      fmt::print(stderr, "\r{}\x1b[K", line);
    }
    return !interrupt.interrupted();
  };
  LoadRun run = run_load(options.target, options.plan, source, watch);
  if (shown) fmt::print(stderr, "\r\x1b[K");
  return run;
}

int run(CommandOptions& options) {
  ScenarioOptions& scenarios = options.scenarios;
  scenarios.chat = options.endpoint == "chat";
  for (const auto& [name, scenario] : scenario_names)
    if (options.scenario == name) scenarios.scenario = scenario;
  scenarios.prompt_tokens = parse_length_range(options.prompt, "--prompt-tokens", 1);
  scenarios.generate = parse_length_range(options.generate, "--generate", 1);
  options.target.address = parse_server_url(options.url);
  options.target.api_key = read_api_key(options.target.api_key, options.api_key_file);
  options.plan.path = scenarios.chat ? "/chat/completions" : "/completions";
  options.plan.seed = scenarios.seed;
  if (options.plan.requests == 0 && options.plan.duration == 0) options.plan.requests = 100;
  const int64_t files = raise_file_limit();
  if (options.plan.concurrency + 32 > files)
    fail("--concurrency {}: this process may open {} files; raise that with ulimit -n",
         options.plan.concurrency, files);

  if (scenarios.model.empty()) scenarios.model = first_model(options.target);
  scenarios.words_per_token = measure_words_per_token(options);
  ScenarioSource source(scenarios);
  const LoadSummary summary = summarize(run_watched(options, source));
  write_output(options.json ? load_json(summary) : load_text(summary));
  return summary.failed == 0 ? exit_status::success : exit_status::failure;
}

void add_load(CLI::App& command, CommandOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help, const char* type) {
    return command.add_option(name, value, help)->type_name(type)->group("Load");
  };
  const auto between = [](auto least, auto most) {
    return CLI::Range(least, most).description("");
  };
  CLI::Option* users = add("--concurrency", options.plan.concurrency,
                           "so many users ask, one request at a time each [16]", "N")
                           ->check(between(1, 100000));
  add("--rate", options.plan.rate,
      "or users come at random, so many a second on average, however busy the server is", "X")
      ->check(between(1e-6, 1e6))
      ->excludes(users);
  add("--requests", options.plan.requests, "requests in all [100, or what --duration allows]", "N")
      ->check(between(1, 1 << 30));
  add("--duration", options.plan.duration, "seconds in which requests begin", "X")
      ->check(between(1e-3, 1e6));
  add("--cut", options.plan.cut, "share of streams that the client cuts off half-way [0]", "X")
      ->check(between(0.0, 1.0));
  add("--timeout", options.target.timeout, "seconds without a byte that are a failure [600]", "X")
      ->check(between(1e-3, 1e6));
}

void add_requests(CLI::App& command, CommandOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help, const char* type) {
    return command.add_option(name, value, help)->type_name(type)->group("Requests");
  };
  const auto between = [](int64_t least, int64_t most) {
    return CLI::Range(least, most).description("");
  };
  add("--endpoint", options.endpoint, "chat or completions [chat]", "NAME")
      ->check(CLI::IsMember({"chat", "completions"}).description(""));
  add("--scenario", options.scenario,
      "random prompts; shared-prefix: with one long beginning; multi-turn: conversations [random]",
      "NAME")
      ->check(CLI::IsMember({"random", "shared-prefix", "multi-turn"}).description(""));
  add("--prompt-tokens", options.prompt, "tokens of a message, or a range [128]", "N|N:N");
  add("--generate", options.generate, "most tokens of an answer, or a range [64]", "N|N:N");
  add("--prefix-tokens", options.scenarios.prefix_tokens,
      "of the beginning that prompts share in shared-prefix [1024]", "N")
      ->check(between(1, 1 << 24));
  add("--turns", options.scenarios.turns, "of a conversation in multi-turn [5]", "N")
      ->check(between(1, 10000));
  command
      .add_flag("--ignore-eos", options.scenarios.ignore_eos,
                "answers have their full length (qnext, vLLM, SGLang)")
      ->group("Requests");
  add("--seed", options.scenarios.seed, "of prompts, lengths and arrivals [0]", "N");
}

}  // namespace

void register_loadtest(CLI::App& app) {
  auto options = std::make_shared<CommandOptions>();
  CLI::App& command =
      add_command(app, "loadtest", "Measure a server of OpenAI's API under load", examples);
  command.add_option("URL", options->url, "of the server [http://127.0.0.1:8000]")->type_name("");
  command
      .add_option("--model", options->scenarios.model, "model [the first that the server lists]")
      ->type_name("NAME");
  CLI::Option* key =
      command.add_option("--api-key", options->target.api_key, "key to send")->type_name("KEY");
  command.add_option("--api-key-file", options->api_key_file, "the same, from a file's first line")
      ->type_name("FILE")
      ->excludes(key);
  command.add_flag("--insecure", options->target.insecure, "accept any TLS certificate");
  command.add_flag("--json", options->json, "the report as JSON");
  add_load(command, *options);
  add_requests(command, *options);
  on_run(command, [options] { return run(*options); });
}

}  // namespace qnext::app
