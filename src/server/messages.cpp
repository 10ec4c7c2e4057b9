#include "server/messages.h"

#include <utility>

#include "server/chat_prompt.h"
#include "server/chat_request.h"
#include "server/messages_request.h"
#include "server/messages_writer.h"
#include "server/response_head.h"

namespace qnext::server {
namespace {

// What shared code calls otherwise.
constexpr FieldName names[] = {{"stop", "stop_sequences"},
                               {"response_format.json_schema", "output_config.format"},
                               {"response_format", "output_config.format"},
                               {".function.parameters", ".input_schema"},
                               {".function.", "."}};

}  // namespace

std::unique_ptr<Generation> start_message(const json::Value& body, const std::string& id,
                                          const ServedModel& model, EngineThread& engine) {
  Fields(body).required("max_tokens");
  const json::Value chat = messages_as_chat(body);
  ChatRequest request = with_names(
      names, [&] { return read_chat_request(Fields(chat), model, engine.options().max_context); });
  const bool stream = request.settings.stream;
  auto writer = std::make_unique<MessagesWriter>(
      MessagesWriter::Options{.id = id,
                              .model = model.id,
                              .stream = stream,
                              .in_reasoning = request.in_reasoning,
                              .tools = std::move(request.tools),
                              .prompt_tokens = std::ssize(request.choices.front().prompt)},
      *model.tokenizer);
  auto generation = std::make_unique<Generation>(
      engine.submit(std::move(request.choices), feed_options(stream, false)), std::move(writer),
      stream, 1);
  generation->set_notes(std::move(request.notes));
  return generation;
}

int64_t count_message_tokens(const json::Value& body, const ServedModel& model) {
  const json::Value chat = messages_as_chat(body);
  return with_names(names, [&] {
    return std::ssize(model.tokenizer->encode(chat_prompt(Fields(chat), model).text));
  });
}

}  // namespace qnext::server
