// The sampling defaults that a checkpoint recommends: generation_config.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace qnext {

// Empty where the file says nothing.
struct GenerationConfig {
  std::optional<bool> do_sample;  // false: greedy, whatever the other fields say
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<int64_t> top_k;  // 0: no limit
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::optional<int64_t> max_new_tokens;
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> pad_token_id;
  bool operator==(const GenerationConfig&) const = default;
};

// Throws Error naming `what` and the field: wrong kinds, values out of range.
GenerationConfig parse_generation_config(const json::Value& value,
                                         std::string_view what = "generation_config.json");

// folder/generation_config.json; all fields empty where there is no such file.
GenerationConfig load_generation_config(const std::string& folder);

}  // namespace qnext
