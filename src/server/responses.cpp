#include "server/responses.h"

#include <ctime>
#include <string_view>
#include <utility>

#include "server/chat_request.h"
#include "server/random_id.h"
#include "server/response_head.h"
#include "server/responses_request.h"
#include "server/responses_writer.h"

namespace qnext::server {
namespace {

// What shared code calls otherwise.
constexpr FieldName names[] = {
    {"max_tokens", "max_output_tokens"},      {"messages", "input"},
    {"reasoning_effort", "reasoning.effort"}, {"response_format.json_schema", "text.format"},
    {"response_format", "text.format"},       {".function.", "."}};

[[noreturn]] void refuse_unknown(const std::string& id) {
  throw ApiError(404, fmt::format("there is no response '{}' here (any more)", id), "not_found");
}

// A number as its shortest text says it: 0.7 and not 0.699999988.
double shortest(float value) {
  return std::stod(fmt::format("{}", value));
}

json::Object input_items(const StoredResponse& stored, const std::string& id) {
  json::Array items = json::parse(stored.input(), "input").as_array();
  for (size_t i = 0; i < items.size(); ++i)
    if (!items[i].find("id"))
      items[i].as_object().set("id", fmt::format("item_{}_{}", id.substr(id.find('_') + 1), i));
  const json::Value first = items.empty() ? json::Value() : *items.front().find("id");
  const json::Value last = items.empty() ? json::Value() : *items.back().find("id");
  return {{"object", "list"},
          {"data", std::move(items)},
          {"first_id", first},
          {"last_id", last},
          {"has_more", false}};
}

}  // namespace

std::unique_ptr<Generation> start_response(const json::Value& body, const ServedModel& model,
                                           EngineThread& engine, ResponseStore& store) {
  ResponsesRequest read = read_responses_request(body, store);
  ChatRequest request = with_names(names, [&] {
    return read_chat_request(Fields(read.chat), model, engine.options().max_context);
  });
  const bool stream = request.settings.stream;
  const ops::SamplingParameters& sampling = request.settings.request.sampling;
  read.told_again.set("temperature", shortest(sampling.temperature));
  read.told_again.set("top_p", shortest(sampling.top_p));
  auto writer = std::make_unique<ResponsesWriter>(
      ResponsesWriter::Options{.id = random_id() + random_id(),
                               .model = model.id,
                               .created = static_cast<int64_t>(std::time(nullptr)),
                               .stream = stream,
                               .in_reasoning = request.in_reasoning,
                               .tools = std::move(request.tools),
                               .told_again = std::move(read.told_again),
                               .store = read.store ? &store : nullptr,
                               .input = std::move(read.input),
                               .previous = std::move(read.previous)},
      *model.tokenizer);
  auto generation = std::make_unique<Generation>(
      engine.submit(std::move(request.choices), feed_options(stream, false)), std::move(writer),
      stream, 1);
  generation->set_notes(std::move(request.notes));
  return generation;
}

std::string stored_response(const std::string& name, ResponseStore& store) {
  constexpr std::string_view items = "/input_items";
  const bool wants_items = name.ends_with(items);
  const std::string id = wants_items ? name.substr(0, name.size() - items.size()) : name;
  const StoredResponse::Pointer stored = store.find(id);
  if (!stored) refuse_unknown(id);
  return wants_items ? json::write(input_items(*stored, id)) : stored->response();
}

json::Object delete_response(const std::string& id, ResponseStore& store) {
  if (!store.erase(id)) refuse_unknown(id);
  return {{"id", id}, {"object", "response"}, {"deleted", true}};
}

}  // namespace qnext::server
