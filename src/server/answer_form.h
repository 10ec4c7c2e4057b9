// What a request says of the form of its answer: response_format, tools, tool_choice,
// parallel_tool_calls; vLLM's guided_json, guided_regex and guided_choice, and llama.cpp's
// json_schema.
//
// Whatever the form, reasoning is free, and a call that has begun is well-formed and its arguments
// are by the tool's schema, under tool_choice "auto" too. Schemas that cannot be enforced are
// refused (400, naming the place), but for those of tools under "auto" without "strict": their
// calls are well-formed, and the answer's head says so (FormedAnswer::notes). A request with a
// dozen tools from elsewhere, one of them with a keyword too many, would else not be served at all,
// where other servers enforce nothing of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/constraint.h"
#include "server/fields.h"
#include "server/served_model.h"

namespace qnext::server {

struct FormedAnswer {
  std::shared_ptr<const engine::Constraint> constraint;  // null: none was asked for
  std::vector<std::string>
      notes;  // "tools[0].function.parameters#/properties/x: not enforced: ..."
};

// `tools` that the answer may call, as chat_prompt() gives them, and the prompt that it continues.
// Throws ApiError naming the field.
FormedAnswer read_answer_form(const Fields& fields, const json::Array& tools,
                              const std::string& prompt, const ServedModel& model);

// The same for endpoints without conversation.
FormedAnswer read_text_form(const Fields& fields, const ServedModel& model);

}  // namespace qnext::server
