// The key that clients of a server send.
#pragma once

#include <string>

namespace qnext::app {

// `key` itself, or, where a file is named, its first line. Throws Error where that is empty.
std::string read_api_key(const std::string& key, const std::string& file);

}  // namespace qnext::app
