#include "server/answer_fields.h"

#include <charconv>
#include <limits>
#include <random>
#include <utility>

namespace qnext::server {
namespace {

constexpr int64_t any = std::numeric_limits<int64_t>::max();

std::vector<std::pair<int32_t, float>> read_logit_bias(const Fields& fields,
                                                       const ServedModel& model) {
  std::vector<std::pair<int32_t, float>> biases;
  const json::Value* value = fields.find("logit_bias");
  if (!value) return biases;
  const Fields entries(*value, fields.path("logit_bias"));
  for (const auto& [name, bias] : value->as_object()) {
    int32_t token = -1;
    const auto read = std::from_chars(name.data(), name.data() + name.size(), token);
    const bool whole = read.ec == std::errc{} && read.ptr == name.data() + name.size();
    if (!whole || token < 0 || token >= model.tokenizer->vocabulary_size())
      fields.refuse("logit_bias", fmt::format("names '{}', which is no token of the model", name));
    if (const auto amount = entries.number(name, -100, 100))
      biases.emplace_back(token, static_cast<float>(*amount));
  }
  return biases;
}

std::vector<std::string> read_stop(const Fields& fields) {
  std::vector<std::string> strings;
  const json::Value* value = fields.find("stop");
  if (!value) return strings;
  const json::Array list = value->is_array() ? value->as_array() : json::Array{*value};
  if (list.size() > 64) fields.refuse("stop", "names more than 64 strings");
  for (const json::Value& entry : list) {
    if (!entry.is_string()) fields.refuse("stop", "must be a string or a list of strings");
    if (entry.as_string().empty()) fields.refuse("stop", "holds an empty string");
    strings.push_back(entry.as_string());
  }
  return strings;
}

std::vector<int32_t> read_stop_tokens(const Fields& fields, const ServedModel& model) {
  const json::Value* value = fields.find("stop_token_ids");
  if (!value) return {};
  if (!value->is_array()) fields.refuse("stop_token_ids", "must be a list of token ids");
  return read_token_ids(value->as_array(), model.tokenizer->vocabulary_size(),
                        fields.path("stop_token_ids"));
}

ops::SamplingParameters read_sampling(const Fields& fields, const ServedModel& model) {
  ops::SamplingParameters sampling = model.sampling;
  const auto set = [&](const char* name, float& value, double least, double most) {
    if (const auto given = fields.number(name, least, most)) value = static_cast<float>(*given);
  };
  set("temperature", sampling.temperature, 0, 2);
  set("top_p", sampling.top_p, 1e-6, 1);
  set("min_p", sampling.min_p, 0, 1);
  set("presence_penalty", sampling.presence_penalty, -2, 2);
  set("frequency_penalty", sampling.frequency_penalty, -2, 2);
  set("repetition_penalty", sampling.repetition_penalty, 0.01, 100);
  // Some clients turn it off by -1.
  if (const auto top_k = fields.integer("top_k", -1, std::numeric_limits<int32_t>::max()))
    sampling.top_k = static_cast<int32_t>(std::max(*top_k, int64_t{0}));
  sampling.logit_bias = read_logit_bias(fields, model);
  const auto seed = fields.integer("seed", std::numeric_limits<int64_t>::min(), any);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : std::random_device{}();
  return sampling;
}

}  // namespace

AnswerSettings read_answer_settings(const Fields& fields, const ServedModel& model) {
  AnswerSettings settings;
  engine::GenerationRequest& request = settings.request;
  request.sampling = read_sampling(fields, model);
  request.max_tokens = fields.integer("max_tokens", 1, any);
  // The newer name of the same thing.
  if (const auto most = fields.integer("max_completion_tokens", 1, any)) request.max_tokens = most;
  request.stop_strings = read_stop(fields);
  request.stop_tokens = read_stop_tokens(fields, model);
  request.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  request.speculate = model.speculate;
  request.user = fields.text("user").value_or("");
  settings.choices = static_cast<int32_t>(fields.integer("n", 1, most_choices).value_or(1));
  settings.stream = fields.boolean("stream").value_or(false);
  if (const json::Value* options = fields.find("stream_options")) {
    const Fields inner(*options, fields.path("stream_options"));
    settings.include_usage = inner.boolean("include_usage").value_or(false);
    if (!settings.stream) fields.refuse("stream_options", "needs \"stream\": true");
  }
  return settings;
}

void add_choices(std::vector<engine::GenerationRequest>& requests, const AnswerSettings& settings,
                 const std::vector<int32_t>& prompt, int64_t max_context, const char* field) {
  if (std::ssize(prompt) >= max_context)
    throw ApiError(
        400,
        fmt::format("{} has {} tokens, but the context of {} leaves no room for an answer", field,
                    prompt.size(), max_context),
        "context_length_exceeded", field);
  for (int32_t i = 0; i < settings.choices; ++i) {
    engine::GenerationRequest& request = requests.emplace_back(settings.request);
    request.prompt = prompt;
    request.sampling.seed += static_cast<uint64_t>(i);
  }
}

}  // namespace qnext::server
