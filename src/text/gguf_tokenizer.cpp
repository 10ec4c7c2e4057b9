#include "text/gguf_tokenizer.h"

#include <unordered_map>

#include "base/error.h"
#include "checkpoint/stored_tensor.h"
#include "text/byte_level.h"

namespace qnext {

namespace {

constexpr std::string_view tokens_key = "tokenizer.ggml.tokens";
constexpr std::string_view merges_key = "tokenizer.ggml.merges";

WordScanner read_scanner(const GgufMetadata& metadata) {
  const std::string_view model = metadata.string("tokenizer.ggml.model");
  if (model != "gpt2")
    fail("{}: metadata tokenizer.ggml.model \"{}\" is not supported; \"gpt2\" is", metadata.what(),
         printable(model));
  const std::string_view split = metadata.string("tokenizer.ggml.pre");
  if (split != "qwen2" && split != "qwen35")
    fail("{}: metadata tokenizer.ggml.pre \"{}\" is not supported; \"qwen2\" and \"qwen35\" are",
         metadata.what(), printable(split));
  return WordScanner(split == "qwen35");
}

class VocabularyReader {
 public:
  explicit VocabularyReader(const GgufMetadata& metadata)
      : metadata_(metadata), texts_(metadata.strings(tokens_key)) {
    if (texts_.size() > INT32_MAX) bad(tokens_key, "it has {} tokens", texts_.size());
    const std::string_view kinds_key = "tokenizer.ggml.token_type";
    kinds_ = metadata.find_integers(kinds_key).value_or(
        std::vector<int64_t>(texts_.size(), static_cast<int64_t>(GgufTokenKind::normal)));
    if (kinds_.size() != texts_.size())
      bad(kinds_key, "it has {} entries for {} tokens", kinds_.size(), texts_.size());
    ids_.reserve(texts_.size());
    for (size_t id = 0; id < texts_.size(); ++id) read_token(id);
    // What pads the vocabulary to the rows of the embedding.
    definition_.tokens.resize(used_);
  }

  TokenizerDefinition read() {
    read_merges();
    definition_.nfc = true;
    definition_.bos = named("bos");
    definition_.eos = named("eos");
    definition_.pad = named("padding");
    return std::move(definition_);
  }

 private:
  template <typename... Arguments>
  [[noreturn]] void bad(std::string_view key, fmt::format_string<Arguments...> format,
                        Arguments&&... arguments) const {
    fail("{}: metadata {}: {}", metadata_.what(), key,
         fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  void read_token(size_t id) {
    const std::string_view text = texts_[id];
    std::string& bytes = definition_.tokens.emplace_back();
    switch (static_cast<GgufTokenKind>(kinds_[id])) {
      case GgufTokenKind::unknown:
      case GgufTokenKind::unused:
        return;
      case GgufTokenKind::normal: {
        std::optional<std::string> decoded = from_byte_level(text);
        if (!decoded || decoded->empty())
          bad(tokens_key, "\"{}\" (id {}) is not written in the byte-level alphabet",
              printable(text), id);
        bytes = *std::move(decoded);
        break;
      }
      case GgufTokenKind::control:
      case GgufTokenKind::user_defined:
        add_token(id, text);
        break;
      default:
        bad("tokenizer.ggml.token_type", "token {} is of kind {}, which is not supported", id,
            kinds_[id]);
    }
    const auto [same, is_new] = ids_.emplace(text, static_cast<int32_t>(id));
    if (!is_new)
      bad(tokens_key, "\"{}\" has two ids, {} and {}", printable(text), same->second, id);
    used_ = id + 1;
  }

  void add_token(size_t id, std::string_view text) {
    if (text.empty()) bad(tokens_key, "token {} is empty", id);
    if (text.size() > AddedTokenMatcher::maximum_length)
      bad(tokens_key, "token {} is longer than {} bytes", id, AddedTokenMatcher::maximum_length);
    AddedToken& token = definition_.added.emplace_back();
    token.id = static_cast<int32_t>(id);
    token.content = text;
    token.special = static_cast<GgufTokenKind>(kinds_[id]) == GgufTokenKind::control;
  }

  void read_merges() {
    const std::vector<std::string_view> merges = metadata_.strings(merges_key);
    definition_.merges.reserve(merges.size());
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const std::string_view both = merges[rank];
      const size_t space = both.find(' ');
      if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos)
        bad(merges_key, "{}: \"{}\" is not two tokens with a space between", rank, printable(both));
      std::string merged(both);
      merged.erase(space, 1);
      definition_.merges.push_back({mergeable(both.substr(0, space), rank),
                                    mergeable(both.substr(space + 1), rank),
                                    mergeable(merged, rank)});
    }
  }

  int32_t mergeable(std::string_view text, size_t rank) const {
    const auto found = ids_.find(text);
    if (found == ids_.end() || definition_.tokens[static_cast<size_t>(found->second)].empty())
      bad(merges_key, "{}: \"{}\" is no token", rank, printable(text));
    return found->second;
  }

  std::optional<int32_t> named(std::string_view name) const {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
    const std::optional<int64_t> id = metadata_.find_integer(key);
    if (!id) return std::nullopt;
    if (*id < 0 || *id >= static_cast<int64_t>(texts_.size()))
      bad(key, "{} is none of {} tokens", *id, texts_.size());
    const std::string adds = fmt::format("tokenizer.ggml.add_{}_token", name);
    if (name != "padding" && metadata_.find_boolean(adds).value_or(false))
      bad(adds, "a token in every text is not supported: write it in the chat template");
    if (*id >= static_cast<int64_t>(used_)) return std::nullopt;
    return static_cast<int32_t>(*id);
  }

  const GgufMetadata& metadata_;
  std::vector<std::string_view> texts_;
  std::vector<int64_t> kinds_;
  std::unordered_map<std::string_view, int32_t> ids_;
  size_t used_ = 0;  // one more than the last id that is a token
  TokenizerDefinition definition_;
};

}  // namespace

TokenizerDefinition read_gguf_tokenizer(const GgufMetadata& metadata) {
  const WordScanner scanner = read_scanner(metadata);
  TokenizerDefinition definition = VocabularyReader(metadata).read();
  definition.scanner = scanner;
  return definition;
}

Tokenizer load_gguf_tokenizer(const GgufMetadata& metadata) {
  return Tokenizer::from_definition(read_gguf_tokenizer(metadata), metadata.what());
}

std::optional<ModelChatTemplate> load_gguf_chat_template(const GgufMetadata& metadata) {
  const auto standard = metadata.find_string("tokenizer.chat_template");
  if (!standard) return std::nullopt;
  const auto with_tools = metadata.find_string("tokenizer.chat_template.tool_use");
  const auto texts = metadata.find_strings(tokens_key);
  json::Object tokens;
  for (const auto& [variable, key] : {std::pair{"bos_token", "tokenizer.ggml.bos_token_id"},
                                      {"eos_token", "tokenizer.ggml.eos_token_id"},
                                      {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                      {"pad_token", "tokenizer.ggml.padding_token_id"}}) {
    const auto id = metadata.find_integer(key);
    if (id && texts && *id >= 0 && *id < static_cast<int64_t>(texts->size()))
      tokens.set(variable, (*texts)[static_cast<size_t>(*id)]);
  }
  try {
    return ModelChatTemplate(
        ChatTemplate(std::string(*standard)),
        with_tools ? std::optional<ChatTemplate>(ChatTemplate(std::string(*with_tools)))
                   : std::nullopt,
        std::move(tokens));
  } catch (const Error& error) {
    fail("{}: metadata tokenizer.chat_template: {}", metadata.what(), error.what());
  }
}

}  // namespace qnext
