// From the messages of a chat request to the text that the model continues.
#pragma once

#include <string>

#include "base/json.h"
#include "server/fields.h"
#include "server/served_model.h"

namespace qnext::server {

// Renders `messages` (and `tools`, unless tool_choice is "none") with the model's chat template;
// chat_template_kwargs are variables of the template. reasoning_effort "none" and "minimal" set its
// enable_thinking to false. With continue_final_message the text ends where the last message, which
// is the assistant's, does. Templates see what they were written for:
// content as text, the arguments of tool calls as objects, "developer" as "system".
// Throws ApiError naming the field that is wrong or not supported yet; 400 too for what the
// template refuses.
struct ChatPrompt {
  std::string text;
  json::Array tools;  // that the model may call: none where tool_choice is "none"
};
ChatPrompt chat_prompt(const Fields& fields, const ServedModel& model);

}  // namespace qnext::server
