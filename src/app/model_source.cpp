#include "app/model_source.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "model/gguf_config.h"
#include "model/gguf_weights.h"
#include "text/gguf_tokenizer.h"

namespace qnext::app {
namespace {

namespace fs = std::filesystem;

std::string bundled_model_folder() {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path installed =
      program.parent_path() / ".." / "share" / "qnext" / "models" / "tiny-shakespeare";
  const fs::path source = fs::path(QNEXT_SOURCE_DIR) / "models" / "tiny-shakespeare";
  for (const fs::path& folder : {installed, source}) {
    if (fs::exists(folder / "config.json", ignored)) return folder.lexically_normal();
  }
  fail("the bundled model is neither in {} nor in {}; name a model with --model FOLDER",
       installed.lexically_normal().string(), source.string());
}

}  // namespace

namespace {

// Downloads of GGUF files are folders too. The first file by name is whole, or the first part.
void check_is_checkpoint(const fs::path& folder) {
  std::error_code ignored;
  if (fs::exists(folder / "config.json", ignored)) return;
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".gguf") files.push_back(entry.path().string());
  if (files.empty()) return;  // what is missing is said where it is read
  fail("{} has no config.json but GGUF files; name one with --model {}", folder.string(),
       *std::ranges::min_element(files));
}

}  // namespace

ModelSource::ModelSource(const std::string& given)
    : path_(given.empty() ? bundled_model_folder() : given) {
  std::error_code ignored;
  if (!fs::exists(path_, ignored))
    fail("there is no {}; --model names the folder of a Hugging Face checkpoint or a GGUF file",
         path_);
  if (fs::is_directory(path_, ignored))
    check_is_checkpoint(path_);
  else
    gguf_.emplace(path_);
}

Config ModelSource::config() const {
  return gguf_ ? read_gguf_config(*gguf_) : load_config(path_);
}

std::string ModelSource::config_bytes() const {
  if (!gguf_) return read_file((fs::path(path_) / "config.json").string());
  const MemoryMap& map = *gguf_->maps().front();
  size_t head = map.size();
  for (const StoredTensor& tensor : gguf_->tensors())
    if (tensor.file == 0) head = std::min(head, tensor.offset);
  return {reinterpret_cast<const char*>(map.data()), head};
}

GenerationConfig ModelSource::generation_config() const {
  return gguf_ ? read_gguf_generation_config(*gguf_) : load_generation_config(path_);
}

Checkpoint ModelSource::checkpoint(const Config& config) const {
  return gguf_ ? gguf_checkpoint(*gguf_, config) : Checkpoint(path_);
}

Tokenizer ModelSource::tokenizer() const {
  if (gguf_) return load_gguf_tokenizer(gguf_->metadata());
  return Tokenizer::load(path_);
}

std::optional<TokenizerDefinition> ModelSource::tokenizer_definition() const {
  if (gguf_) {
    if (!gguf_->metadata().find("tokenizer.ggml.model")) return std::nullopt;
    return read_gguf_tokenizer(gguf_->metadata());
  }
  std::error_code ignored;
  if (!fs::exists(fs::path(path_) / "tokenizer.json", ignored)) return std::nullopt;
  return load_tokenizer_definition(path_);
}

std::optional<ModelChatTemplate> ModelSource::chat_template() const {
  if (gguf_) return load_gguf_chat_template(gguf_->metadata());
  return ModelChatTemplate::load(path_);
}

}  // namespace qnext::app
