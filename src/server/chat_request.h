// What an endpoint of conversations asks of the engine, read from the fields of a chat completion.
//
// The other protocols say the same in fields of their own, which they translate into these first:
// so sampling, tools, constraints and prompts are read in one place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "server/answer_fields.h"
#include "server/fields.h"
#include "server/served_model.h"

namespace qnext::server {

struct ChatRequest {
  AnswerSettings settings;
  std::vector<engine::GenerationRequest> choices;  // settings.choices of them
  bool logprobs = false;
  bool in_reasoning = false;            // the prompt ends inside "<think>"
  json::Array tools = {};               // that the model may call
  std::vector<std::string> notes = {};  // FormedAnswer::notes
};

// Throws ApiError naming the field.
ChatRequest read_chat_request(const Fields& fields, const ServedModel& model, int64_t max_context);

}  // namespace qnext::server
