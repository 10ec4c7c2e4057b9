// A request of Anthropic's Messages API, in the fields of a chat completion.
//
// Blocks of text, tool_use, tool_result and thinking; redacted thinking, which nobody here can
// read, is left out. A last message of the assistant is gone on with. `thinking` turns the
// template's enable_thinking on or off; its budget is a wish that the model does not know of, and
// cache_control one too, since whatever is computed is cached anyway. Sampling fields that only the
// other endpoints have (seed, min_p, ...) are read here as there.
#pragma once

#include "base/json.h"

namespace qnext::server {

// Throws ApiError naming the field that is wrong or not supported.
json::Value messages_as_chat(const json::Value& body);

}  // namespace qnext::server
