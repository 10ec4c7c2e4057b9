// From the messages of a chat request to the text that the model continues.
#pragma once

#include <string>

#include "base/json.h"
#include "server/fields.h"
#include "server/served_model.h"

namespace qnext::server {

// Renders `messages` (and `tools`, unless tool_choice is "none") with the model's chat template;
// chat_template_kwargs are variables of the template. Templates see what they were written for:
// content as text, the arguments of tool calls as objects, "developer" as "system".
// Throws ApiError naming the field; 400 too for what the template refuses.
std::string chat_prompt(const Fields& fields, const ServedModel& model);

// The tools that the model may call: empty without any, or where tool_choice is "none". Throws
// ApiError for what is malformed or not supported yet.
json::Array read_tools(const Fields& fields);

}  // namespace qnext::server
