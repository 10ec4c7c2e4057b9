// Known model sizes, and changing them one by one, for checkpoints made rather than trained.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace qnext {

// "qwen3-next-80b-a3b": the sizes of the released Qwen3-Next-80B-A3B.
std::vector<std::string> preset_names();
// The config.json of a preset. Throws Error on an unknown name, listing the known ones.
json::Value preset_config(std::string_view name);

// What set_size() accepts: "hidden-size", "layers", "experts", ... in the order of a help text.
std::vector<std::string> size_names();
// Changes one size of a config.json. parse_config() then says whether the sizes fit together.
// Throws Error on an unknown name (listing the known ones) or a negative value.
void set_size(json::Value& config, std::string_view name, int64_t value);

}  // namespace qnext
