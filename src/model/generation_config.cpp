#include "model/generation_config.h"

#include <filesystem>
#include <limits>

#include "model/config_fields.h"

namespace qnext {

namespace {

constexpr int64_t maximum_token = std::numeric_limits<int32_t>::max();

std::optional<double> number_between(const ConfigFields& fields, std::string_view name,
                                     double least, double most) {
  if (!fields.find(name)) return std::nullopt;
  const double value = fields.number(name, 0);
  if (!(value >= least && value <= most))
    fields.bad("{} = {} is out of range: it must be {} to {}", name, value, least, most);
  return value;
}

std::optional<int64_t> integer_between(const ConfigFields& fields, std::string_view name,
                                       int64_t least, int64_t most) {
  if (!fields.find(name)) return std::nullopt;
  return fields.integer(name, 0, least, most);
}

}  // namespace

GenerationConfig parse_generation_config(const json::Value& value, std::string_view what) {
  const ConfigFields fields(value, std::string(what));
  GenerationConfig config;
  if (fields.find("do_sample")) config.do_sample = fields.boolean("do_sample", true);
  config.temperature = number_between(fields, "temperature", 0, 100);
  config.top_p = number_between(fields, "top_p", 0, 1);
  config.min_p = number_between(fields, "min_p", 0, 1);
  config.top_k = integer_between(fields, "top_k", 0, maximum_token);
  config.repetition_penalty = number_between(fields, "repetition_penalty", 1e-3, 1000);
  config.presence_penalty = number_between(fields, "presence_penalty", -100, 100);
  config.frequency_penalty = number_between(fields, "frequency_penalty", -100, 100);
  config.max_new_tokens = integer_between(fields, "max_new_tokens", 1, maximum_token);
  config.eos_token_ids = fields.integers("eos_token_id");
  for (int64_t id : config.eos_token_ids)
    if (id < 0 || id > maximum_token) fields.bad("eos_token_id {} is not a token", id);
  config.bos_token_id = integer_between(fields, "bos_token_id", 0, maximum_token);
  config.pad_token_id = integer_between(fields, "pad_token_id", 0, maximum_token);
  return config;
}

GenerationConfig load_generation_config(const std::string& folder) {
  const std::string path = folder + "/generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  return parse_generation_config(json::parse_file(path), path);
}

}  // namespace qnext
