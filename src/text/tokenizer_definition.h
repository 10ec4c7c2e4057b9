// What a tokenizer.json (and tokenizer_config.json) says, checked and in plain form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/byte_pair_encoder.h"
#include "text/word_scanner.h"

namespace qnext {

struct TokenizerDefinition {
  std::vector<std::string> tokens;  // bytes by id; empty where the id is only an added token's
  std::vector<BytePairEncoder::Merge> merges;
  bool ignore_merges = false;
  bool nfc = false;
  WordScanner scanner{false};
  std::vector<AddedToken> added;  // ascending by id, ids and contents all different
  std::optional<int32_t> bos, eos, pad;
};

// Throws Error, prefixed with `name`, where the text is malformed, inconsistent or asks for
// something that is not supported. An empty config means none.
TokenizerDefinition read_tokenizer_definition(std::string_view tokenizer_json,
                                              std::string_view name, std::string_view config_json);

// The same from `path`, a tokenizer.json or its folder, with the tokenizer_config.json beside it.
TokenizerDefinition load_tokenizer_definition(const std::string& path);

}  // namespace qnext
