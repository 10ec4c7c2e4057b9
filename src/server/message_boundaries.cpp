#include "server/message_boundaries.h"

#include <algorithm>

namespace qnext::server {

std::vector<int64_t> message_boundaries(std::span<const int32_t> prompt,
                                        const Tokenizer& tokenizer) {
  std::vector<int64_t> places;
  const auto opens = std::find_if(prompt.rbegin(), prompt.rend(),
                                  [&](int32_t token) { return tokenizer.is_special(token); });
  if (opens == prompt.rend()) return places;
  for (size_t i = 1; i < prompt.size(); ++i)
    if (prompt[i] == *opens) places.push_back(static_cast<int64_t>(i));
  return places;
}

}  // namespace qnext::server
