// Where the messages of a chat begin in its prompt: where another conversation may part from it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/tokenizer.h"

namespace qnext::server {

// Places in `prompt`, counted in tokens, ascending, without its start. The last special token of a
// prompt opens the assistant's turn ("<|im_start|>"), and the same token opens every message: so no
// template needs to be understood, and the places are where the text is cut into tokens anyway.
// Nothing for templates without such a token.
std::vector<int64_t> message_boundaries(std::span<const int32_t> prompt,
                                        const Tokenizer& tokenizer);

}  // namespace qnext::server
