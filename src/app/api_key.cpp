#include "app/api_key.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"

namespace qnext::app {

std::string read_api_key(const std::string& key, const std::string& file) {
  if (file.empty()) return key;
  std::string line = read_file(file);
  line.erase(std::find_if(line.begin(), line.end(), [](char c) { return c == '\n' || c == '\r'; }),
             line.end());
  if (line.empty()) fail("{} holds no key: its first line is the key", file);
  return line;
}

}  // namespace qnext::app
