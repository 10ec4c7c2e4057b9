#include "server/chat_request.h"

#include <utility>

#include "server/answer_form.h"
#include "server/chat_prompt.h"
#include "text/answer_parser.h"

namespace qnext::server {

ChatRequest read_chat_request(const Fields& fields, const ServedModel& model, int64_t max_context) {
  ChatRequest request;
  request.settings = read_answer_settings(fields, model);
  request.logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, 20);
  if (top && !request.logprobs) fields.refuse("top_logprobs", "needs \"logprobs\": true");
  if (request.logprobs)
    request.settings.request.sampling.logprobs = static_cast<int32_t>(top.value_or(0));

  ChatPrompt prompt = chat_prompt(fields, model);
  const std::vector<int32_t> tokens = model.tokenizer->encode(prompt.text);
  if (tokens.empty()) fields.refuse("messages", "make an empty prompt");
  add_choices(request.choices, request.settings, tokens, max_context, "messages");
  request.in_reasoning = prompt_opens_reasoning(prompt.text);
  FormedAnswer formed = read_answer_form(fields, prompt.tools, prompt.text, model);
  for (engine::GenerationRequest& choice : request.choices) choice.constraint = formed.constraint;
  request.notes = std::move(formed.notes);
  request.tools = std::move(prompt.tools);
  return request;
}

}  // namespace qnext::server
