// /v1/responses: conversations as OpenAI's Responses API holds them.
#pragma once

#include <memory>
#include <string>

#include "base/json.h"
#include "server/generation.h"
#include "server/response_store.h"
#include "server/served_model.h"

namespace qnext::server {

// Reads the request and submits its answer. Throws ApiError; QueueFull where there is no room. The
// store must outlive the generation.
std::unique_ptr<Generation> start_response(const json::Value& body, const ServedModel& model,
                                           EngineThread& engine, ResponseStore& store);

// What is asked of stored responses by `name`: the object; the items that its request brought
// ("ID/input_items"); its end. Throw ApiError 404 where there is none.
std::string stored_response(const std::string& name, ResponseStore& store);
json::Object delete_response(const std::string& id, ResponseStore& store);

}  // namespace qnext::server
