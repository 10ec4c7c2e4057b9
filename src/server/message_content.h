// The text of a message, which comes as a string or as a list of parts.
#pragma once

#include <string>

#include "base/json.h"

namespace qnext::server {

// The parts' texts, one behind the other. Throws ApiError naming `path`, or the part of it, for a
// part that is no text: an image, say.
std::string read_text_content(const json::Value& content, const std::string& path);

}  // namespace qnext::server
