// qnext quantize: a checkpoint to one GGUF file, its matrices rounded to blocks.
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>

#include "app/calibration.h"
#include "app/command.h"
#include "app/evaluation.h"
#include "app/interrupt.h"
#include "app/model_files.h"
#include "app/model_metadata.h"
#include "app/progress.h"
#include "app/quantize_report.h"
#include "app/terminal.h"
#include "app/units.h"
#include "base/error.h"
#include "model/quantize.h"

namespace qnext::app {
namespace {

namespace fs = std::filesystem;

struct QuantizeCommandOptions {
  std::string model;
  std::string output;
  std::string type;
  std::vector<std::string> tensor_types;  // "PATTERN=TYPE"
  std::string calibrate;                  // a text file; empty: all columns count alike
  std::string evaluate;                   // a text file; empty: no more than the table
  bool mtp = true;
  bool force = false;
  int threads = 0;
};

constexpr const char* examples =
    "  qnext quantize ~/models/Qwen3-Next-80B-A3B-Instruct model.gguf --type q4_k\n"
    "  qnext quantize ~/models/Qwen3-Next-80B-A3B-Instruct model.gguf --type q4_k \\\n"
    "    --tensor-type '*.attn_*=q8_0' --tensor-type 'blk.0.*=q6_k'\n"
    "  qnext quantize models/tiny-shakespeare tiny.gguf --type q3_k \\\n"
    "    --calibrate text.txt --evaluate other-text.txt\n"
    "  qnext generate \"Once upon a time\" --model model.gguf";

// Ctrl-C, on its way through the work.
struct Interrupted {};

TypeOverride parse_override(const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0)
    fail("--tensor-type {}: write PATTERN=TYPE, as '*.attn_*=q8_0'", text);
  return {text.substr(0, equals), quantize_type(text.substr(equals + 1))};
}

void check_output(const std::string& output, bool force) {
  std::error_code ignored;
  if (fs::is_directory(output, ignored)) fail("{} is a folder; name a file to write", output);
  if (fs::exists(output, ignored) && !force)
    fail("{} exists; name another file, or replace it by --force", output);
}

// What is written, against its source, on the CPU, which runs both kinds of file.
std::string evaluation_text(const ModelFiles& source, const std::string& written,
                            TokenizedText text, int threads) {
  MachineOptions machine;
  machine.device = "cpu";
  machine.threads = threads;
  const ModelFiles files(written);
  const auto candidate = load_backend(files, machine, false);
  const auto reference = load_backend(source, machine, false);
  return comparison_text(compare_on_text(*candidate, *reference, std::move(text), {}, threads));
}

int quantize_model(const QuantizeCommandOptions& command) {
  QuantizeOptions options;
  options.type = quantize_type(command.type);
  options.threads = command.threads;
  for (const std::string& text : command.tensor_types)
    options.overrides.push_back(parse_override(text));
  check_output(command.output, command.force);
  const ModelFiles files(command.model);
  const bool with_mtp = files.weights.has_mtp && command.mtp;
  const GgufPairs metadata = gguf_metadata(files, with_mtp, options.type);

  // Before hours of work, not after.
  std::optional<TokenizedText> evaluation;
  if (!command.evaluate.empty())
    evaluation =
        tokenize_text(command.evaluate, read_text_file(command.evaluate), load_tokenizer(files));
  Importance importance;
  if (!command.calibrate.empty()) {
    importance = calibrate(files, command.calibrate, with_mtp, command.threads);
    options.importance = &importance;
  }

  const auto start = std::chrono::steady_clock::now();
  std::vector<QuantizedTensor> tensors;
  {
    const InterruptScope interrupt;
    ProgressBar bar("quantising");
    options.progress = [&](size_t done, size_t total) {
      if (interrupt.interrupted()) throw Interrupted{};
      bar.update(done, total);
    };
    try {
      tensors =
          quantize(files.config, files.checkpoint, with_mtp, metadata, command.output, options);
    } catch (const Interrupted&) {
      return exit_status::interrupted;
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  write_output(fmt::format("{} in {}\n{}", command.output, seconds_text(seconds.count()),
                           quantize_table(tensors)));
  if (evaluation)
    write_output("\n" +
                 evaluation_text(files, command.output, std::move(*evaluation), command.threads));
  return exit_status::success;
}

}  // namespace

void register_quantize(CLI::App& app) {
  auto options = std::make_shared<QuantizeCommandOptions>();
  CLI::App& command =
      add_command(app, "quantize", "Write a model as a GGUF file of smaller weights", examples);
  command.add_option("model", options->model, "folder of a checkpoint, or a GGUF file")
      ->type_name("")
      ->required();
  command.add_option("output", options->output, "the file to write")->type_name("")->required();
  command
      .add_option("--type", options->type,
                  fmt::format("of most matrices: {}", fmt::join(quantize_type_names(), ", ")))
      ->type_name("TYPE")
      ->required()
      ->check(CLI::IsMember(quantize_type_names()).description(""));
  command
      .add_option("--tensor-type", options->tensor_types,
                  "another type for matrices of the file with such names; the last counts")
      ->type_name("PATTERN=TYPE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  const auto add_text = [&](const char* name, std::string& file, const char* help) {
    command.add_option(name, file, help)->type_name("FILE");
  };
  add_text("--calibrate", options->calibrate,
           "errors count as much as this text's activations in their columns");
  add_text("--evaluate", options->evaluate,
           "perplexity of both models and KL divergence on this text at the end");
  command.add_flag_callback(
      "--no-mtp", [options] { options->mtp = false; }, "without the head that drafts tokens");
  command.add_flag("--force", options->force, "replace a file that is there");
  command.add_option("--threads", options->threads, "threads [one for each core]")
      ->type_name("N")
      ->check(CLI::Range(1, 1024).description(""));
  on_run(command, [options] { return quantize_model(*options); });
}

}  // namespace qnext::app
