// Where a model lies, and what is read from there besides its weights.
#pragma once

#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf.h"
#include "model/config.h"
#include "model/generation_config.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tokenizer_definition.h"

namespace qnext::app {

// A folder of a Hugging Face checkpoint, or a GGUF file, which holds everything.
class ModelSource {
 public:
  // What --model names, or, where it is empty, the bundled model's folder: beside the installed
  // program, else in the source tree that it was built from. Throws Error saying what is missing,
  // and every fault of a GGUF file's head.
  explicit ModelSource(const std::string& given);

  const std::string& path() const { return path_; }
  bool is_gguf() const { return gguf_.has_value(); }

  // Each throws Error naming the file and what is wrong with it.
  Config config() const;
  // The bytes that config() reads: of config.json, or of a GGUF file's head.
  std::string config_bytes() const;
  GenerationConfig generation_config() const;
  Checkpoint checkpoint(const Config& config) const;
  Tokenizer tokenizer() const;
  std::optional<TokenizerDefinition> tokenizer_definition() const;  // nullopt where there is none
  std::optional<ModelChatTemplate> chat_template() const;           // nullopt where there is none

 private:
  std::string path_;
  std::optional<GgufFiles> gguf_;
};

}  // namespace qnext::app
