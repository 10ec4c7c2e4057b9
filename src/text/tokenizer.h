// The tokenizer of the Qwen models: text to token ids and back, id for id what the Hugging Face
// `tokenizers` library gives for the same tokenizer.json.
//
// The way of a text: added tokens are found in it; what lies between is normalised (NFC), searched
// for the added tokens that are defined on normalised text, cut into words (word_scanner.h), and
// each word is encoded by merging byte pairs (byte_pair_encoder.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"

namespace qnext {

struct TokenizerDefinition;

// Immutable once made and safe to use from several threads at once. Move-only.
class Tokenizer {
 public:
  // Reads tokenizer.json, and tokenizer_config.json beside it where there is one. `path` is that
  // file or its folder. Throws Error naming the file and what is wrong or not supported in it.
  // Supported: byte-level BPE; NFC or no normaliser; the Qwen2/3 and Qwen3.5 splits; added tokens
  // with all their flags; ignore_merges. Truncation and padding settings have no effect here.
  static Tokenizer load(const std::string& path);
  // The same from text; `name` stands for the file in errors. An empty config means none.
  static Tokenizer from_json(std::string_view tokenizer_json, std::string_view name,
                             std::string_view config_json = {});
  // The same from what a file said; `name` stands for it in errors.
  static Tokenizer from_definition(TokenizerDefinition definition, std::string_view name);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // With parse_special false the special tokens written in `text` are encoded as ordinary text (for
  // what users wrote); other added tokens are still found, as in `tokenizers`.
  // Time grows linearly with the text, whatever it holds (n log n inside one word).
  // Throws Error naming the byte offset where `text` is not valid UTF-8.
  std::vector<int32_t> encode(std::string_view text, bool parse_special = true) const;

  // The text of the tokens; bytes that are not UTF-8 become U+FFFD as in Python's
  // bytes.decode("utf-8", errors="replace"). Ids without a token give nothing: models have more
  // rows in their embedding than the tokenizer has tokens. An added token gives its content, where
  // `tokenizers` reads that as byte-level text and shows a token "\u00E9" as U+FFFD.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // The bytes that a token stands for; empty for ids without a token.
  std::string_view token_bytes(int32_t id) const;
  // The id of an added token with this content, or of the token with these bytes.
  std::optional<int32_t> token_id(std::string_view content) const;
  bool is_special(int32_t id) const;
  // One more than the largest id; every id below it is a token.
  int32_t vocabulary_size() const;
  const std::vector<AddedToken>& added_tokens() const;  // ascending by id

  // The tokens that tokenizer_config.json names.
  std::optional<int32_t> bos_token_id() const;
  std::optional<int32_t> eos_token_id() const;
  std::optional<int32_t> pad_token_id() const;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace qnext
