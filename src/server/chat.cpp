#include "server/chat.h"

#include <utility>

#include "server/chat_request.h"
#include "server/chat_writer.h"

namespace qnext::server {

std::unique_ptr<Generation> start_chat(const json::Value& body, const std::string& id,
                                       const ServedModel& model, EngineThread& engine) {
  ChatRequest request = read_chat_request(Fields(body), model, engine.options().max_context);
  const AnswerSettings& settings = request.settings;
  auto writer =
      std::make_unique<ChatWriter>(ChatWriter::Options{.head = make_head("chatcmpl-", id, model.id),
                                                       .stream = settings.stream,
                                                       .include_usage = settings.include_usage,
                                                       .logprobs = request.logprobs,
                                                       .in_reasoning = request.in_reasoning,
                                                       .tools = std::move(request.tools)},
                                   request.choices.size(), *model.tokenizer);
  auto generation = std::make_unique<Generation>(
      engine.submit(std::move(request.choices), feed_options(settings.stream, request.logprobs)),
      std::move(writer), settings.stream, settings.choices);
  generation->set_notes(std::move(request.notes));
  return generation;
}

}  // namespace qnext::server
