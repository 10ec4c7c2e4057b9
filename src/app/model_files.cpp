#include "app/model_files.h"

#include <algorithm>
#include <filesystem>

#include "app/inventory.h"
#include "app/progress.h"
#include "backend/cpu/cpu_backend.h"
#ifdef QNEXT_CUDA
#include "backend/cuda/cuda_backend.h"
#endif
#include "base/cpu_features.h"
#include "base/error.h"

namespace qnext::app {

// config.json first: of all files it tells most about what is wrong with a folder.
ModelFiles::ModelFiles(const std::string& model_option)
    : source(model_option),
      config(source.config()),
      generation(source.generation_config()),
      checkpoint(source.checkpoint(config)),
      weights(check_weights(config, checkpoint)) {}

std::vector<int32_t> ModelFiles::stop_tokens() const {
  std::vector<int32_t> tokens;
  for (const auto* ids : {&config.eos_token_ids, &generation.eos_token_ids}) {
    for (const int64_t id : *ids) {
      const auto token = static_cast<int32_t>(id);
      if (std::find(tokens.begin(), tokens.end(), token) == tokens.end()) tokens.push_back(token);
    }
  }
  return tokens;
}

void check_tokenizer_size(const ModelFiles& files, int64_t tokens) {
  if (tokens > files.config.vocabulary_size)
    fail(
        "{}: the tokenizer has {} tokens but the model a vocabulary of {}; they are not of one "
        "model",
        files.path(), tokens, files.config.vocabulary_size);
}

Tokenizer load_tokenizer(const ModelFiles& files) {
  const std::string& path = files.path();
  if (!files.source.is_gguf() &&
      !std::filesystem::exists(std::filesystem::path(path) / "tokenizer.json"))
    fail("{} has no tokenizer.json, so it has no text; bench and verify run without one", path);
  Tokenizer tokenizer = files.source.tokenizer();
  check_tokenizer_size(files, tokenizer.vocabulary_size());
  return tokenizer;
}

namespace {

// Why the GPU of this machine cannot do what is asked; nothing if it can.
std::optional<std::string> why_no_gpu([[maybe_unused]] const MachineOptions& options) {
#ifdef QNEXT_CUDA
  if (auto reason = backend::why_no_cuda()) return reason;
  return options.why_not_on_gpu();
#else
  return "this build is without CUDA";
#endif
}

// Whether --device means the GPU. Under auto the CPU takes what the GPU cannot, and says so.
bool use_gpu(const ModelFiles& files, const MachineOptions& options) {
  const std::optional<std::string> no_cpu = options.why_not_on_cpu();
  if (options.device == "cpu") {
    if (no_cpu) fail("{}", *no_cpu);
    return false;
  }
  std::optional<std::string> no_gpu = why_no_gpu(options);
  if (!no_gpu && files.source.is_gguf()) no_gpu = "GGUF files run on the CPU only, so far";
  if (!no_gpu) return true;
  if (options.device == "cuda") fail("--device cuda: {}; use --device cpu", *no_gpu);
  if (no_cpu) fail("{}; {}", *no_cpu, *no_gpu);
#ifdef QNEXT_CUDA
  fmt::print(stderr, "using the CPU: {}\n", *no_gpu);
#endif
  return false;
}

#ifdef QNEXT_CUDA
backend::CudaOptions cuda_options(const MachineOptions& options, bool want_mtp, ProgressBar& bar) {
  using Path = backend::CudaOptions::Path;
  return {.threads = options.threads,
          .quantize = options.quantization(),
          .kv_dtype = options.kv_dtype(),
          .state_dtype = options.state_dtype(),
          .activations = options.activations_dtype(),
          .path = options.backend_path == "eager" ? Path::eager : Path::graph,
          .load_mtp = want_mtp,
          .progress = [&](size_t done, size_t total) { bar.update(done, total); }};
}
#endif

}  // namespace

std::unique_ptr<backend::Backend> load_backend(const ModelFiles& files,
                                               const MachineOptions& options, bool want_mtp) {
  if (want_mtp && !files.weights.has_mtp)
    fail("{} has no MTP head, which --speculate needs; leave --speculate out", files.path());
  if (!options.isa.empty()) limit_isa(isa_from_name(options.isa));
  const bool gpu = use_gpu(files, options);
  ProgressBar bar("loading");
#ifdef QNEXT_CUDA
  if (gpu) {
    return backend::make_cuda_backend(files.checkpoint, files.config,
                                      cuda_options(options, want_mtp, bar));
  }
#endif
  QNEXT_CHECK(!gpu);
  if (const std::string text = held_text(take_inventory(files, options.quantization()));
      !text.empty())
    fmt::print(stderr, "{}: {}\n", files.path(), text);
  return backend::make_cpu_backend(
      files.checkpoint, files.config,
      {.threads = options.threads,
       .quantize = options.quantization(),
       .kv_dtype = options.kv_dtype(),
       .load_mtp = want_mtp,
       .progress = [&](size_t done, size_t total) { bar.update(done, total); }});
}

std::unique_ptr<backend::Backend> make_random_backend([[maybe_unused]] const Config& config,
                                                      const MachineOptions& options,
                                                      [[maybe_unused]] bool want_mtp) {
  std::optional<std::string> reason = why_no_gpu(options);
  if (options.device == "cpu") reason = "--device cpu was asked for";
  if (reason)
    fail("--weights random needs a GPU ({}); write a checkpoint with qnext synth instead", *reason);
#ifdef QNEXT_CUDA
  ProgressBar bar("making weights");
  return backend::make_random_cuda_backend(config, cuda_options(options, want_mtp, bar));
#else
  QNEXT_CHECK(false, "a build without CUDA has a reason");
#endif
}

}  // namespace qnext::app
