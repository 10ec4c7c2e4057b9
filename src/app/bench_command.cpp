// qnext bench: how fast a model runs on this machine, and how near to what its memory allows.
#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <optional>

#include "app/bench.h"
#include "app/bench_report.h"
#include "app/command.h"
#include "app/inventory.h"
#include "app/model_files.h"
#include "app/options.h"
#include "app/terminal.h"
#include "base/error.h"
#include "model/preset.h"

namespace qnext::app {
namespace {

struct CommandOptions {
  std::string model;
  std::string weights;  // random, or empty: those of the model
  std::string preset = "qwen3-next-80b-a3b";
  std::optional<int64_t> layers;
  MachineOptions machine;
  int64_t prompt = 512;
  int64_t generate = 64;
  std::vector<int32_t> batches = {1};
  std::vector<int64_t> contexts;  // empty: the prompt alone
  BenchOptions bench;
  bool json = false;
};

constexpr const char* examples =
    "  qnext synth /tmp/q8 --preset qwen3-next-80b-a3b --layers 8\n"
    "  qnext bench --model /tmp/q8 --quantize q4_0 --threads 2\n"
    "  qnext bench --model /tmp/q8 --batch 1,8 --context 512,4096\n"
    "  qnext bench --device cuda --weights random --quantize f8 --prompt 8192 --context 1024\n"
    "Prompts are random tokens, answers greedy. Figures are medians, tokens of all sequences of a\n"
    "batch together; decoding is timed from the moment when all of them decode.";

// A model and what runs it.
struct Loaded {
  std::optional<ModelFiles> files;  // before the backend, which may read them
  std::unique_ptr<backend::Backend> backend;
};

Loaded load(const CommandOptions& options) {
  const bool want_mtp = options.bench.answer.speculate > 0;
  Loaded loaded;
  if (options.weights.empty()) {
    const ModelFiles& files = loaded.files.emplace(options.model);
    loaded.backend = load_backend(files, options.machine, want_mtp);
  } else {
    json::Value config = preset_config(options.preset);
    if (options.layers) set_size(config, "layers", *options.layers);
    loaded.backend = make_random_backend(parse_config(config), options.machine, want_mtp);
  }
  return loaded;
}

// A line for the prompt alone, unless decoding begins behind just that prompt.
std::vector<BenchPoint> bench_points(const CommandOptions& options) {
  std::vector<BenchPoint> points;
  std::vector<int64_t> contexts = options.contexts;
  if (contexts.empty()) {
    contexts = {options.prompt};
  } else {
    points.push_back({.batch = 1, .context = options.prompt, .generate = 0});
  }
  for (const int64_t context : contexts) {
    for (const int32_t batch : options.batches)
      points.push_back({.batch = batch, .context = context, .generate = options.generate});
  }
  return points;
}

std::string weights_text(const CommandOptions& options, const Loaded& loaded) {
  if (loaded.files) {
    const Inventory inventory = take_inventory(*loaded.files, options.machine.quantization());
    if (std::string held = held_text(inventory); !held.empty()) return "where " + held;
  }
  std::string text = options.machine.quantize.empty() ? "" : "in " + options.machine.quantize;
  if (!options.weights.empty()) text = text.empty() ? "at random" : text + " at random";
  return text.empty() ? "as stored" : text;
}

int run(CommandOptions& options) {
  if (options.bench.force_acceptance > options.bench.answer.speculate)
    fail("--force-acceptance {} needs --speculate {} or more", options.bench.force_acceptance,
         options.bench.force_acceptance);
  options.bench.points = bench_points(options);
  const auto start = std::chrono::steady_clock::now();
  const Loaded loaded = load(options);
  const std::chrono::duration<double> load_time = std::chrono::steady_clock::now() - start;
  const BenchReport report = measure(*loaded.backend, options.bench);
  const BenchSetting setting = {.capabilities = loaded.backend->capabilities(),
                                .weights = weights_text(options, loaded),
                                .load_seconds = load_time.count(),
                                .repeat = options.bench.repeat,
                                .speculation = options.bench.answer.speculate > 0,
                                .profile = options.bench.profile};
  write_output(options.json ? bench_json(setting, report) : bench_text(setting, report));
  return exit_status::success;
}

void add_what_to_measure(CLI::App& command, CommandOptions& options) {
  const auto add = [&](const char* name, auto& value, int64_t least, const char* help) {
    return command.add_option(name, value, help)
        ->type_name("N")
        ->check(CLI::Range(least, int64_t{1} << 24).description(""));
  };
  const auto add_list = [&](const char* name, auto& value, const char* help) {
    add(name, value, 1, help)->type_name("N,N")->delimiter(',')->allow_extra_args(false);
  };
  add("--prompt", options.prompt, 1, "tokens of the prompt [512]");
  add("--generate", options.generate, 1, "tokens to decode, in each sequence [64]");
  add_list("--batch", options.batches, "so many sequences decode together [1]");
  add_list("--context", options.contexts, "decode behind prompts of so many tokens [--prompt]");
  add("--repeat", options.bench.repeat, 1, "repeats, after one that is not counted [3]");
  add("--force-acceptance", options.bench.force_acceptance, 0,
      "so many drafts of each step pass for right");
  command.add_flag("--profile", options.bench.profile, "where the time goes, by stage");
  command.add_flag("--json", options.json, "the same as JSON, with every repeat");
}

void add_random_weights(CLI::App& command, CommandOptions& options, CLI::Option* model) {
  CLI::Option* weights =
      command.add_option("--weights", options.weights, "random: no checkpoint, GPU only")
          ->type_name("NAME")
          ->check(CLI::IsMember({"random"}).description(""))
          ->excludes(model);
  command.add_option("--preset", options.preset, "sizes of random weights [qwen3-next-80b-a3b]")
      ->type_name("NAME")
      ->check(CLI::IsMember(preset_names()).description(""))
      ->needs(weights);
  command.add_option("--layers", options.layers, "layers of random weights [the preset's]")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20).description(""))
      ->needs(weights);
}

}  // namespace

void register_bench(CLI::App& app) {
  auto options = std::make_shared<CommandOptions>();
  CLI::App& command =
      add_command(app, "bench", "Measure speed, and the share of the memory's speed", examples);
  add_model_option(command, options->model);
  add_random_weights(command, *options, command.get_option("--model"));
  add_what_to_measure(command, *options);
  add_step_options(command, options->bench.answer);
  add_machine_options(command, options->machine);
  on_run(command, [options] { return run(*options); });
}

}  // namespace qnext::app
