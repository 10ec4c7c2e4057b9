// /v1/embeddings: texts as vectors.
//
// A text's vector is the mean, over its tokens, of the model's hidden states after the final norm,
// scaled to length 1. It has as many values as the model is wide; fewer (`dimensions`) are refused,
// as this model was not made for vectors that are cut short.
#pragma once

#include <memory>

#include "base/json.h"
#include "server/generation.h"
#include "server/served_model.h"

namespace qnext::server {

// Reads the request and submits its texts, each as a request of its own. Throws ApiError; QueueFull
// where there is no room for all of them just now.
std::unique_ptr<Generation> start_embeddings(const json::Value& body, const ServedModel& model,
                                             EngineThread& engine);

}  // namespace qnext::server
