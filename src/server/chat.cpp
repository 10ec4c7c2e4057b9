#include "server/chat.h"

#include <utility>
#include <vector>

#include "server/answer_fields.h"
#include "server/chat_prompt.h"
#include "server/chat_writer.h"

namespace qnext::server {

std::unique_ptr<Generation> start_chat(const json::Value& body, const std::string& id,
                                       const ServedModel& model, EngineThread& engine) {
  const Fields fields(body);
  AnswerSettings settings = read_answer_settings(fields, model);
  const bool logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, 20);
  if (top && !logprobs) fields.refuse("top_logprobs", "needs \"logprobs\": true");
  if (logprobs) settings.request.sampling.logprobs = static_cast<int32_t>(top.value_or(0));

  ChatPrompt prompt = chat_prompt(fields, model);
  const std::vector<int32_t> tokens = model.tokenizer->encode(prompt.text);
  if (tokens.empty()) fields.refuse("messages", "make an empty prompt");
  std::vector<engine::GenerationRequest> requests;
  add_choices(requests, settings, tokens, engine.options().max_context, "messages");
  auto writer = std::make_unique<ChatWriter>(
      ChatWriter::Options{.head = make_head("chatcmpl-", id, model.id),
                          .stream = settings.stream,
                          .include_usage = settings.include_usage,
                          .logprobs = logprobs,
                          .in_reasoning = prompt_opens_reasoning(prompt.text),
                          .tools = std::move(prompt.tools)},
      requests.size(), *model.tokenizer);
  return std::make_unique<Generation>(
      engine.submit(std::move(requests), feed_options(settings.stream, logprobs)),
      std::move(writer), settings.stream, settings.choices);
}

}  // namespace qnext::server
