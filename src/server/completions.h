// /v1/completions: texts continued as they are, without a chat template.
#pragma once

#include <memory>
#include <string>

#include "base/json.h"
#include "server/generation.h"
#include "server/served_model.h"

namespace qnext::server {

// Reads the request and submits its answers: for each prompt (a string, a list of token ids, or a
// list of either) n of them, numbered prompt by prompt. `id` names the response. Throws ApiError;
// QueueFull where there is no room.
std::unique_ptr<Generation> start_completion(const json::Value& body, const std::string& id,
                                             const ServedModel& model, EngineThread& engine);

}  // namespace qnext::server
