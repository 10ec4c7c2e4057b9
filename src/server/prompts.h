// The field of a request that holds one text or several, as text or as token ids.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/fields.h"
#include "text/tokenizer.h"

namespace qnext::server {

struct TextPrompt {
  std::string text;
  std::vector<int32_t> tokens;  // at least one
};

// A string, a list of token ids, or a list of either, `most` at the most. Throws ApiError naming
// the field `name`.
std::vector<TextPrompt> read_text_prompts(const Fields& fields, const char* name, int64_t most,
                                          const Tokenizer& tokenizer);

}  // namespace qnext::server
