// qnext perplexity: how well a model predicts a text, and how far it is from another one.
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "app/command.h"
#include "app/evaluation.h"
#include "app/model_files.h"
#include "app/options.h"
#include "app/terminal.h"
#include "base/error.h"

namespace qnext::app {
namespace {

struct CommandOptions {
  std::string model;
  std::string reference;  // empty: no comparison
  std::string text;
  WindowOptions windows;
  MachineOptions machine;
  bool json = false;
};

constexpr const char* examples =
    "  qnext perplexity --text shakespeare.txt\n"
    "  qnext perplexity --model x-Q4_K_M.gguf --text wiki.txt --context 4096 --stride 512\n"
    "  qnext perplexity --model x-Q4_K_M.gguf --reference Qwen3-Next-80B-A3B --text wiki.txt\n"
    "  qnext perplexity --model model/ --quantize q4_0 --reference model/ --text wiki.txt\n"
    "The text is read in windows; each token is scored once, behind context - stride tokens or\n"
    "more of its window. Against a reference the mean KL divergence says what the perplexity may\n"
    "hide. --quantize, --kv and the like are for the model; the reference runs as stored.";

// The reference runs on the same device, as exactly as it can.
MachineOptions exact(const MachineOptions& options) {
  const MachineOptions defaults;
  MachineOptions out = options;
  out.quantize = defaults.quantize;
  out.kv_type = defaults.kv_type;
  out.state_type = defaults.state_type;
  out.activations = defaults.activations;
  return out;
}

void check_same_tokenizer(const ModelFiles& model, const ModelFiles& reference,
                          const TokenizedText& text, const TokenizedText& reference_text) {
  if (model.config.vocabulary_size != reference.config.vocabulary_size)
    fail("{} has a vocabulary of {} tokens and {} one of {}; only models of one vocabulary compare",
         model.path(), model.config.vocabulary_size, reference.path(),
         reference.config.vocabulary_size);
  if (text.tokens != reference_text.tokens)
    fail(
        "the tokenizers of {} and {} cut {} into different tokens; only models of one tokenizer "
        "compare",
        model.path(), reference.path(), text.name);
}

void write_json(json::Object out, const backend::Backend& backend) {
  out.set("device", backend.capabilities().device);
  write_output(json::write(out, 2) + "\n");
}

int run(const CommandOptions& options) {
  const std::string content = read_text_file(options.text);
  const ModelFiles files(options.model);
  TokenizedText text = tokenize_text(options.text, content, load_tokenizer(files));
  std::optional<ModelFiles> reference_files;
  if (!options.reference.empty()) {
    reference_files.emplace(options.reference);
    check_same_tokenizer(files, *reference_files, text,
                         tokenize_text(options.text, content, load_tokenizer(*reference_files)));
  }
  const auto backend = load_backend(files, options.machine, false);
  if (!reference_files) {
    const TextMeasurement measured =
        measure_text(*backend, std::move(text), options.windows, options.machine.threads);
    if (options.json)
      write_json(measurement_json(measured), *backend);
    else
      write_output(measurement_text(measured));
    return exit_status::success;
  }
  const auto reference = load_backend(*reference_files, exact(options.machine), false);
  const TextComparison compared = compare_on_text(*backend, *reference, std::move(text),
                                                  options.windows, options.machine.threads);
  if (options.json)
    write_json(comparison_json(compared), *backend);
  else
    write_output(comparison_text(compared));
  return exit_status::success;
}

}  // namespace

void register_perplexity(CLI::App& app) {
  auto options = std::make_shared<CommandOptions>();
  CLI::App& command =
      add_command(app, "perplexity", "Measure how well a text is predicted", examples);
  add_model_option(command, options->model);
  command.add_option("--text", options->text, "text to predict; - reads standard input")
      ->type_name("FILE")
      ->required();
  command
      .add_option("--reference", options->reference,
                  "also the KL divergence from this model, as stored")
      ->type_name("MODEL");
  add_window_options(command, options->windows);
  command.add_flag("--json", options->json, "one JSON object instead of lines");
  add_machine_options(command, options->machine);
  on_run(command, [options] { return run(*options); });
}

}  // namespace qnext::app
