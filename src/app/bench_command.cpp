// qnext bench: how fast a model runs on this machine, and how near to what its memory allows.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "app/command.h"
#include "app/model_files.h"
#include "app/options.h"
#include "app/terminal.h"
#include "app/units.h"
#include "base/error.h"
#include "base/json.h"
#include "engine/collector.h"
#include "engine/engine.h"

namespace qnext::app {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchOptions {
  std::string model;
  MachineOptions machine;
  AnswerOptions answer;
  int64_t prompt = 512;
  int64_t generate = 64;
  int repeat = 3;
  bool json = false;
};

constexpr const char* examples =
    "  qnext synth /tmp/q8 --preset qwen3-next-80b-a3b --layers 8\n"
    "  qnext bench --model /tmp/q8 --quantize q4_0 --threads 2\n"
    "Prompts are random tokens, answers greedy. Figures are medians; bandwidth, prefill and "
    "decode\n"
    "are measured in turn, so that all see the same machine.";

// One repetition.
struct Measurement {
  double bandwidth = 0;        // bytes read a second by a plain loop over memory
  double prefill = 0;          // tokens a second
  double decode = 0;           // tokens a second
  double bytes_per_token = 0;  // moved by the decode steps, from shapes
  double tokens_per_step = 0;
};

struct BenchReport {
  std::vector<Measurement> repeats;
  double load_seconds = 0;
  size_t peak_bytes = 0;
  backend::Capabilities capabilities;

  double median(double Measurement::*field) const {
    std::vector<double> values;
    for (const Measurement& one : repeats) values.push_back(one.*field);
    std::ranges::sort(values);
    const size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  }
  // The speed that the measured bandwidth allows, and the share of it that decoding reaches.
  double roofline() const {
    return median(&Measurement::bandwidth) / median(&Measurement::bytes_per_token);
  }
  double share() const { return median(&Measurement::decode) / roofline(); }
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Tokens spread over the vocabulary; the same in every run (a linear congruential generator).
std::vector<int32_t> random_prompt(int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens;
  uint64_t state = 1;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    tokens.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary)));
  }
  return tokens;
}

// Splits one answer at its first token, where the prompt has run and decoding begins.
class Stopwatch : public engine::Collector {
 public:
  explicit Stopwatch(const backend::Backend& backend) : backend_(backend) {}

  void on_token(engine::RequestId id, const ops::SampledToken& token) override {
    if (tokens.empty()) {
      first = Clock::now();
      traffic_before = backend_.traffic().total();
    }
    last = Clock::now();
    engine::Collector::on_token(id, token);
  }

  Clock::time_point start = Clock::now();
  Clock::time_point first;
  Clock::time_point last;
  size_t traffic_before = 0;

 private:
  const backend::Backend& backend_;
};

void measure_answer(engine::Engine& engine, const backend::Backend& backend,
                    const BenchOptions& options, Measurement& out) {
  auto request =
      options.answer.request(random_prompt(options.prompt, backend.config().vocabulary_size), {});
  request.max_tokens = options.generate + 1;  // the first one belongs to the prompt
  request.ignore_eos = true;
  Stopwatch watch(backend);
  engine.submit(std::move(request), watch);
  engine.run();
  if (watch.finish->reason == engine::FinishReason::error) fail("{}", watch.finish->error);
  const double seconds = std::chrono::duration<double>(watch.last - watch.first).count();
  const auto decoded = static_cast<double>(watch.tokens.size() - 1);
  out.prefill = static_cast<double>(options.prompt) /
                std::chrono::duration<double>(watch.first - watch.start).count();
  out.decode = decoded / seconds;
  out.bytes_per_token =
      static_cast<double>(backend.traffic().total() - watch.traffic_before) / decoded;
  out.tokens_per_step = watch.finish->counts.tokens_per_step();
}

size_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

BenchReport measure(const BenchOptions& options) {
  BenchReport report;
  const ModelFiles files(options.model);
  const auto start = Clock::now();
  const auto backend = load_backend(files, options.machine, options.answer.speculate > 0);
  report.load_seconds = seconds_since(start);
  report.capabilities = backend->capabilities();
  engine::EngineOptions engine_options = options.answer.engine_options({});
  if (engine_options.max_context == 0)
    engine_options.max_context = options.prompt + options.generate + 1;
  engine::Engine engine(*backend, nullptr, engine_options);
  Measurement warm_up;
  measure_answer(engine, *backend, options, warm_up);
  report.peak_bytes = peak_resident_bytes();  // before the bandwidth's buffer counts as well

  for (int i = 0; i < options.repeat; ++i) {
    Measurement& one = report.repeats.emplace_back();
    one.bandwidth = backend->measure_read_bandwidth();
    measure_answer(engine, *backend, options, one);
  }
  return report;
}

void print_text(const BenchOptions& options, const BenchReport& report) {
  const auto line = [](const char* name, const std::string& value) {
    fmt::print("{:<16}{}\n", name, value);
  };
  const double bytes = report.median(&Measurement::bytes_per_token);
  const double bandwidth = report.median(&Measurement::bandwidth);
  line("device", report.capabilities.device);
  line("weights",
       fmt::format(
           "{}{}, loaded in {}", bytes_text(static_cast<double>(report.capabilities.weight_bytes)),
           options.machine.quantize.empty() ? " as stored" : " in " + options.machine.quantize,
           seconds_text(report.load_seconds)));
  line("prefill", fmt::format("{} tokens/s ({} tokens)",
                              rate_text(report.median(&Measurement::prefill)), options.prompt));
  line("decode", fmt::format("{} tokens/s ({} tokens)",
                             rate_text(report.median(&Measurement::decode)), options.generate));
  if (options.answer.speculate > 0)
    line("speculation",
         fmt::format("{:.2f} tokens/step", report.median(&Measurement::tokens_per_step)));
  line("read a token", bytes_text(bytes));
  line("read bandwidth", bytes_text(bandwidth) + "/s, measured in turn with the above");
  line("roofline", fmt::format("{} tokens/s; decode reaches {:.1f} % of it",
                               rate_text(report.roofline()), 100 * report.share()));
  line("peak memory", bytes_text(static_cast<double>(report.peak_bytes)));
  line("medians of", fmt::format("{} repeats", options.repeat));
}

void print_json(const BenchOptions& options, const BenchReport& report) {
  json::Array repeats;
  for (const Measurement& one : report.repeats) {
    repeats.emplace_back(json::Object{{"read_bandwidth_bytes_per_second", one.bandwidth},
                                      {"prefill_tokens_per_second", one.prefill},
                                      {"decode_tokens_per_second", one.decode},
                                      {"bytes_per_token", one.bytes_per_token},
                                      {"tokens_per_step", one.tokens_per_step}});
  }
  const json::Object out = {
      {"device", report.capabilities.device},
      {"quantize",
       options.machine.quantize.empty() ? json::Value() : json::Value(options.machine.quantize)},
      {"weight_bytes", static_cast<int64_t>(report.capabilities.weight_bytes)},
      {"load_seconds", report.load_seconds},
      {"prompt_tokens", options.prompt},
      {"generated_tokens", options.generate},
      {"prefill_tokens_per_second", report.median(&Measurement::prefill)},
      {"decode_tokens_per_second", report.median(&Measurement::decode)},
      {"tokens_per_step", report.median(&Measurement::tokens_per_step)},
      {"bytes_per_token", report.median(&Measurement::bytes_per_token)},
      {"read_bandwidth_bytes_per_second", report.median(&Measurement::bandwidth)},
      {"roofline_tokens_per_second", report.roofline()},
      {"roofline_share", report.share()},
      {"peak_memory_bytes", static_cast<int64_t>(report.peak_bytes)},
      {"repeats", std::move(repeats)},
  };
  fmt::print("{}\n", json::write(out, 2));
}

int bench(const BenchOptions& options) {
  const BenchReport report = measure(options);
  if (options.json) {
    print_json(options, report);
  } else {
    print_text(options, report);
  }
  return exit_status::success;
}

}  // namespace

void register_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App& command =
      add_command(app, "bench", "Measure speed, and the share of the memory's speed", examples);
  add_model_option(command, options->model);
  const auto add = [&](const char* name, auto& value, const char* help) {
    command.add_option(name, value, help)
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 24).description(""));
  };
  add("--prompt", options->prompt, "tokens of the prompt [512]");
  add("--generate", options->generate, "tokens to decode [64]");
  add("--repeat", options->repeat, "repeats, after one that is not counted [3]");
  command.add_flag("--json", options->json, "the same as JSON, with every repeat");
  add_context_options(command, options->answer);
  add_machine_options(command, options->machine);
  on_run(command, [options] { return bench(*options); });
}

}  // namespace qnext::app
