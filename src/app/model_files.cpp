#include "app/model_files.h"

#include <algorithm>
#include <filesystem>

#include "app/model_folder.h"
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
    : folder(find_model_folder(model_option)),
      config(load_config(folder)),
      generation(load_generation_config(folder)),
      checkpoint(folder),
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

Tokenizer load_tokenizer(const std::string& folder, const Config& config) {
  if (!std::filesystem::exists(std::filesystem::path(folder) / "tokenizer.json"))
    fail("{} has no tokenizer.json, so it has no text; bench and verify run without one", folder);
  Tokenizer tokenizer = Tokenizer::load(folder);
  if (tokenizer.vocabulary_size() > config.vocabulary_size) {
    fail(
        "{}: tokenizer.json has {} tokens but config.json a vocab_size of {}; they are not of one "
        "model",
        folder, tokenizer.vocabulary_size(), config.vocabulary_size);
  }
  return tokenizer;
}

#ifdef QNEXT_CUDA
namespace {

// Whether --device means the GPU. Under auto the CPU takes what the GPU cannot, and says so.
bool use_cuda(const MachineOptions& options) {
  if (options.device == "cpu") return false;
  std::optional<std::string> reason = backend::why_no_cuda();
  if (!reason && options.quantization())
    reason = "the CUDA backend holds weights as stored, without --quantize";
  if (!reason) return true;
  if (options.device == "cuda") fail("--device cuda: {}; use --device cpu", *reason);
  fmt::print(stderr, "using the CPU: {}\n", *reason);
  return false;
}

}  // namespace
#endif

std::unique_ptr<backend::Backend> load_backend(const ModelFiles& files,
                                               const MachineOptions& options, bool want_mtp) {
  if (want_mtp && !files.weights.has_mtp)
    fail("{} has no MTP head, which --speculate needs; leave --speculate out", files.folder);
  if (!options.isa.empty()) limit_isa(isa_from_name(options.isa));
#ifdef QNEXT_CUDA
  if (use_cuda(options)) {
    ProgressBar bar("loading");
    return backend::make_cuda_backend(
        files.checkpoint, files.config,
        {.threads = options.threads,
         .kv_dtype = options.kv_dtype(),
         .load_mtp = want_mtp,
         .progress = [&](size_t done, size_t total) { bar.update(done, total); }});
  }
#endif
  ProgressBar bar("loading");
  return backend::make_cpu_backend(
      files.checkpoint, files.config,
      {.threads = options.threads,
       .quantize = options.quantization(),
       .kv_dtype = options.kv_dtype(),
       .load_mtp = want_mtp,
       .progress = [&](size_t done, size_t total) { bar.update(done, total); }});
}

}  // namespace qnext::app
