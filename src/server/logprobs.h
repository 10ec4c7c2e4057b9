// The log probabilities of tokens as responses tell them.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "engine/request.h"
#include "text/tokenizer.h"

namespace qnext::server {

// Those of /v1/chat/completions: {"content": [{token, logprob, bytes, top_logprobs}]}.
json::Object chat_logprobs(const Tokenizer& tokenizer,
                           const std::vector<ops::SampledToken>& tokens);

// Those of /v1/completions: {tokens, token_logprobs, top_logprobs, text_offset}; `offset` is where
// in the text, in characters, the first token begins, and is moved behind the last.
json::Object completion_logprobs(const Tokenizer& tokenizer,
                                 const std::vector<ops::SampledToken>& tokens, int64_t& offset);

}  // namespace qnext::server
