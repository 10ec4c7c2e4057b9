#include "app/model_metadata.h"

#include <algorithm>
#include <filesystem>

#include "model/gguf_config.h"
#include "model/quantize_recipe.h"
#include "text/gguf_tokenizer.h"

namespace qnext::app {
namespace {

// The name of the folder, or of the file without its ending.
std::string name_of(const std::string& path) {
  std::filesystem::path place = std::filesystem::absolute(path).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();
  return (place.extension() == ".gguf" ? place.stem() : place.filename()).string();
}

// One more token that ends an answer, where the model has one that readers of GGUF do not know by
// its name.
void add_end_of_turn(const TokenizerDefinition& tokenizer, std::optional<int32_t> eos,
                     const std::vector<int32_t>& stop_tokens, GgufPairs& metadata) {
  for (const int32_t token : stop_tokens) {
    const auto added = std::ranges::find(tokenizer.added, token, &AddedToken::id);
    const bool is_known = added != tokenizer.added.end() && added->special &&
                          (added->content == "<|im_end|>" || added->content == "<|endoftext|>");
    if (token == eos || is_known) continue;
    metadata.add("tokenizer.ggml.eot_token_id", static_cast<uint32_t>(token));
    return;
  }
}

}  // namespace

GgufPairs gguf_metadata(const ModelFiles& files, bool with_mtp, DType type) {
  GgufPairs metadata;
  write_gguf_config(files.config, with_mtp, metadata);
  metadata.add("general.name", name_of(files.path()));
  metadata.add("general.file_type", gguf_file_type(type));
  metadata.add("general.quantization_version", 2u);
  write_gguf_generation_config(files.generation, metadata);
  if (const auto tokenizer = files.source.tokenizer_definition()) {
    check_tokenizer_size(files, std::ssize(tokenizer->tokens));
    const std::vector<int32_t> stop_tokens = files.stop_tokens();
    const std::optional<int32_t> eos = tokenizer->eos ? tokenizer->eos
                                       : stop_tokens.empty()
                                           ? std::nullopt
                                           : std::optional<int32_t>(stop_tokens.front());
    write_gguf_tokenizer(*tokenizer, files.config.vocabulary_size, eos, metadata);
    add_end_of_turn(*tokenizer, eos, stop_tokens, metadata);
  }
  if (const auto chat_template = files.source.chat_template())
    write_gguf_chat_template(*chat_template, metadata);
  return metadata;
}

}  // namespace qnext::app
