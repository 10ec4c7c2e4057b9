// /v1/chat/completions: the next message of a conversation.
#pragma once

#include <memory>
#include <string>

#include "base/json.h"
#include "server/generation.h"
#include "server/served_model.h"

namespace qnext::server {

// Reads the request and submits its n answers. `id` names the response. Throws ApiError; QueueFull
// where there is no room.
std::unique_ptr<Generation> start_chat(const json::Value& body, const std::string& id,
                                       const ServedModel& model, EngineThread& engine);

}  // namespace qnext::server
