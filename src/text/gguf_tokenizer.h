// The tokenizer and the chat templates that a GGUF file carries in its metadata: there and back.
#pragma once

#include <cstdint>
#include <optional>

#include "checkpoint/gguf_metadata.h"
#include "checkpoint/gguf_writer.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tokenizer_definition.h"

namespace qnext {

// The published kinds of tokens.
enum class GgufTokenKind : int32_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5
};

// tokenizer.ggml.*: byte-level BPE ("gpt2") with the split of Qwen2/3 ("qwen2") or Qwen3.5
// ("qwen35"). Text is normalised to NFC, as the tokenizers of this family do; GGUF does not say.
// Control and user-defined tokens are added tokens, the first kind special; unused ids have no
// token, and those at the end, which pad the vocabulary to the embedding, are left out.
// Throws Error naming the file and the key: missing or mistyped, another model or split, arrays of
// different lengths, tokens that are not in the byte-level alphabet or appear twice, merges of what
// is no token, ids out of range, and tokens that are to be put before every text.
TokenizerDefinition read_gguf_tokenizer(const GgufMetadata& metadata);
Tokenizer load_gguf_tokenizer(const GgufMetadata& metadata);

// tokenizer.chat_template, and tokenizer.chat_template.tool_use for requests with tools; the
// special tokens are those that the metadata names by id. nullopt where there is no template.
std::optional<ModelChatTemplate> load_gguf_chat_template(const GgufMetadata& metadata);

// The inverse of read_gguf_tokenizer(), but for what GGUF does not say: normalisation, the flags of
// added tokens, ignore_merges. Ids up to `vocabulary`, the rows of the embedding, that have no
// token become unused ones. `eos` stands in where the definition names none.
void write_gguf_tokenizer(const TokenizerDefinition& definition, int64_t vocabulary,
                          std::optional<int32_t> eos, GgufPairs& metadata);
void write_gguf_chat_template(const ModelChatTemplate& chat_template, GgufPairs& metadata);

}  // namespace qnext
