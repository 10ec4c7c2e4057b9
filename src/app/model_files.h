// A model on disk and the backend that runs it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/model_source.h"
#include "app/options.h"
#include "backend/step.h"
#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "model/generation_config.h"
#include "model/weight_schema.h"
#include "text/tokenizer.h"

namespace qnext::app {

// What a checkpoint holds, opened and checked: names, shapes and sizes, no weights read.
struct ModelFiles {
  // Throws Error on anything missing or wrong.
  explicit ModelFiles(const std::string& model_option);

  ModelSource source;
  Config config;
  GenerationConfig generation;
  Checkpoint checkpoint;
  WeightReport weights;

  const std::string& path() const { return source.path(); }
  // Tokens that end an answer: those of config.json and of generation_config.json.
  std::vector<int32_t> stop_tokens() const;
};

// Throws Error where a tokenizer of so many tokens cannot be the model's.
void check_tokenizer_size(const ModelFiles& files, int64_t tokens);
// The model's tokenizer. Throws Error where there is none, or where it has more tokens than the
// model's vocabulary.
Tokenizer load_tokenizer(const ModelFiles& files);

// The weights made ready on this machine, with a progress bar and, where they are held in other
// types than stored though nobody asked for it, a line that says so. `files` must outlive the
// backend. The MTP head is left out unless wanted. Throws Error where --speculate wants one and
// there is none.
std::unique_ptr<backend::Backend> load_backend(const ModelFiles& files,
                                               const MachineOptions& options, bool want_mtp);
// The same with random weights that no file holds, for measuring. Only a GPU makes them: throws
// Error elsewhere.
std::unique_ptr<backend::Backend> make_random_backend(const Config& config,
                                                      const MachineOptions& options, bool want_mtp);

}  // namespace qnext::app
