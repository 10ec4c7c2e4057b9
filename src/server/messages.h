// /v1/messages and /v1/messages/count_tokens: conversations as Anthropic's clients hold them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/json.h"
#include "server/generation.h"
#include "server/served_model.h"

namespace qnext::server {

// Reads the request, whose max_tokens must be there, and submits its answer. `id` names the
// response. Throws ApiError; QueueFull where there is no room.
std::unique_ptr<Generation> start_message(const json::Value& body, const std::string& id,
                                          const ServedModel& model, EngineThread& engine);

// The tokens of the prompt that such a request would make.
int64_t count_message_tokens(const json::Value& body, const ServedModel& model);

}  // namespace qnext::server
