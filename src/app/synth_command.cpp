// qnext synth: a checkpoint of random weights, for measuring at real sizes.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>

#include "app/command.h"
#include "app/progress.h"
#include "app/units.h"
#include "base/error.h"
#include "model/config.h"
#include "model/preset.h"
#include "model/random_checkpoint.h"

namespace qnext::app {
namespace {

namespace fs = std::filesystem;

struct SynthOptions {
  std::string folder;
  std::string preset = "qwen3-next-80b-a3b";
  std::map<std::string, int64_t> sizes;  // by the names of size_names()
  std::string dtype = "bf16";
  uint64_t seed = 1;
  bool mtp = true;
  bool force = false;
  int threads = 0;
};

constexpr const char* examples =
    "  qnext synth /tmp/q8 --preset qwen3-next-80b-a3b --layers 8\n"
    "  qnext synth /tmp/small --layers 4 --hidden-size 256 --experts 16 --vocabulary-size 1000\n"
    "  qnext synth /tmp/fp8 --layers 4 --dtype fp8";

DType parse_dtype(const std::string& name) {
  if (name == "f32") return DType::f32;
  if (name == "f16") return DType::f16;
  return name == "bf16" ? DType::bf16 : DType::f8_e4m3;
}

bool is_checkpoint_file(const fs::path& path) {
  const std::string name = path.filename();
  return path.extension() == ".safetensors" || name == "config.json" ||
         name == "model.safetensors.index.json";
}

// The folder is absent or empty afterwards; --force removes the files of a checkpoint, and those
// only.
void clear_folder(const std::string& folder, bool force) {
  std::error_code ignored;
  if (!fs::exists(folder, ignored)) return;
  if (!fs::is_directory(folder, ignored)) fail("{} is a file; name a folder to write to", folder);
  if (fs::is_empty(folder, ignored)) return;
  if (!force)
    fail("{} is not empty; name another folder, or replace what is there by --force", folder);
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!is_checkpoint_file(entry.path())) {
      fail("{} holds {}, which is no part of a checkpoint; --force leaves such folders alone",
           folder, entry.path().filename().string());
    }
  }
  for (const auto& entry : fs::directory_iterator(folder)) fs::remove(entry.path(), ignored);
}

// What the default preset has for a size: the field that set_size() changes.
std::string preset_size(const std::string& name) {
  const json::Value config = preset_config(SynthOptions{}.preset);
  json::Value changed = config;
  set_size(changed, name, std::numeric_limits<int32_t>::max());
  for (const auto& [field, value] : changed.as_object()) {
    const json::Value* before = config.find(field);
    if (before && !(*before == value)) return json::write(*before);
  }
  return "none";
}

int synth(const SynthOptions& options, const std::map<std::string, int64_t>& sizes) {
  json::Value config = preset_config(options.preset);
  for (const auto& [name, value] : sizes) set_size(config, name, value);
  parse_config(config);  // before anything is removed
  clear_folder(options.folder, options.force);
  uint64_t bytes = 0;
  {
    ProgressBar bar("writing");
    const auto progress = [&](uint64_t done, uint64_t total) {
      bytes = total;
      bar.update(done, total);
    };
    write_random_checkpoint(options.folder, std::move(config),
                            {.dtype = parse_dtype(options.dtype),
                             .seed = options.seed,
                             .with_mtp = options.mtp,
                             .threads = options.threads,
                             .progress = progress});
  }
  fmt::print("{} of random {} weights in {}\n", bytes_text(static_cast<double>(bytes)),
             options.dtype, options.folder);
  return exit_status::success;
}

}  // namespace

void register_synth(CLI::App& app) {
  auto options = std::make_shared<SynthOptions>();
  CLI::App& command =
      add_command(app, "synth", "Write a checkpoint of random weights of any size", examples);
  command.add_option("folder", options->folder, "where to write")->type_name("")->required();
  command.add_option("--preset", options->preset, "sizes to start from [qwen3-next-80b-a3b]")
      ->type_name("NAME")
      ->check(CLI::IsMember(preset_names()).description(""));
  command.add_option("--dtype", options->dtype, "bf16, f32, f16 or fp8 [bf16]")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"bf16", "f32", "f16", "fp8"}).description(""));
  command.add_option("--seed", options->seed, "same seed, same weights [1]")->type_name("N");
  command.add_flag("--mtp", options->mtp, "with the head that drafts tokens (the default)");
  command.add_flag_callback(
      "--no-mtp", [options] { options->mtp = false; }, "without it");
  command.add_flag("--force", options->force, "replace a checkpoint that is there");
  command.add_option("--threads", options->threads, "threads [one for each core]")
      ->type_name("N")
      ->check(CLI::Range(1, 1024).description(""));
  for (const std::string& name : size_names()) {
    command.add_option("--" + name, options->sizes[name], "[" + preset_size(name) + "]")
        ->type_name("N")
        ->group("Sizes [in qwen3-next-80b-a3b]");
  }
  on_run(command, [options, &command] {
    std::map<std::string, int64_t> given;
    for (const auto& [name, value] : options->sizes) {
      if (command.count("--" + name) > 0) given.emplace(name, value);
    }
    return synth(*options, given);
  });
}

}  // namespace qnext::app
