// qnext verify: a checkpoint against the reference vectors of another implementation.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "app/command.h"
#include "app/model_files.h"
#include "app/options.h"
#include "app/terminal.h"
#include "app/verify.h"
#include "base/error.h"

namespace qnext::app {
namespace {

struct CommandOptions {
  std::string model;
  std::string vectors;
  VerifyOptions verify;
  MachineOptions machine;
};

constexpr const char* examples =
    "  qnext verify models/tiny-shakespeare models/tiny-shakespeare/vectors.safetensors\n"
    "  qnext verify model/ vectors.safetensors --chunk 17\n"
    "The exit status is 1 where an error exceeds the tolerance or a token differs.";

std::string differing_text(const VerifyCheck& check) {
  const int64_t others = check.tokens - check.tokens_equal - check.near_ties;
  if (check.near_ties == 0 && others == 0) return "";
  return fmt::format(" ({} near ties, {} otherwise)", check.near_ties, others);
}

// How the rows of a tensor were judged.
std::string rows_text(const RowJudgement& rows) {
  const std::string beyond = fmt::format("; median {:.1e}, {} of {} rows beyond {:.1e}",
                                         rows.median, rows.beyond, rows.rows, rows.tolerance);
  if (!rows.experts_known) return beyond + ", experts unknown";
  return fmt::format("{}; {} diverted, {} of them beyond; {} judged", beyond, rows.diverted(),
                     rows.beyond - rows.judged_beyond, rows.judged);
}

std::string row_text(const VerifyCheck& check) {
  const char* verdict = check.passed ? "ok" : "FAILED";
  if (check.is_tokens())
    return fmt::format("{:<22} {:>12} {:>12} {:>9}/{:<5} {}{}\n", check.what, "", "",
                       check.tokens_equal, check.tokens, verdict, differing_text(check));
  return fmt::format("{:<22} {:>12.3g} {:>12.3g} {:>12.2e}    {}{}\n", check.what,
                     check.largest_error, check.scale, check.relative_error(), verdict,
                     check.rows ? rows_text(*check.rows) : "");
}

int run(const CommandOptions& options) {
  const ModelFiles files(options.model);
  const SafetensorsFile vectors(options.vectors);
  const auto backend = load_backend(files, options.machine, files.weights.has_mtp);
  const backend::Capabilities& capabilities = backend->capabilities();
  const std::vector<VerifyCheck> checks = verify(*backend, vectors, options.verify);

  std::string table =
      fmt::format("{:<22} {:>12} {:>12} {:>15}\n", "vectors", "error", "largest", "relative/equal");
  size_t failed = 0;
  for (const VerifyCheck& check : checks) {
    table += row_text(check);
    failed += !check.passed;
  }
  const bool by_rows =
      std::ranges::any_of(checks, [](const VerifyCheck& check) { return check.rows.has_value(); });
  table +=
      fmt::format("{} of {} checks passed at tolerance {:g}{} ({}){}\n", checks.size() - failed,
                  checks.size(), options.verify.tolerance.value_or(capabilities.relative_error),
                  options.verify.tolerance ? "" : ", this backend's", capabilities.device,
                  by_rows ? ", judged by rows: docs/model.md" : "");
  write_output(table);
  return failed == 0 ? exit_status::success : exit_status::failure;
}

}  // namespace

void register_verify(CLI::App& app) {
  auto options = std::make_shared<CommandOptions>();
  CLI::App& command =
      add_command(app, "verify", "Compare a checkpoint with reference vectors", examples);
  command.add_option("model", options->model, "folder of the checkpoint, or a GGUF file")
      ->type_name("")
      ->required();
  command.add_option("vectors", options->vectors, "vectors.safetensors: what is right")
      ->type_name("")
      ->required();
  command
      .add_option(
          "--tolerance", options->verify.tolerance,
          "largest error over the largest magnitude of a tensor [the backend's roundings, by "
          "rows where activations are bf16]")
      ->type_name("X")
      ->check(CLI::PositiveNumber.description(""));
  command.add_option("--chunk", options->verify.chunk, "rows that a sequence is given at a time")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20).description(""))
      ->capture_default_str();
  add_machine_options(command, options->machine);
  on_run(command, [options] { return run(*options); });
}

}  // namespace qnext::app
