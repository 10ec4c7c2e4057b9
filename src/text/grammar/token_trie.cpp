#include "text/grammar/token_trie.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace qnext::grammar {

TokenTrie::TokenTrie(const Tokenizer& tokenizer, int32_t vocabulary)
    : tokenizer_(&tokenizer), vocabulary_(vocabulary) {
  std::vector<std::pair<std::string_view, int32_t>> tokens;
  for (int32_t id = 0; id < std::min(vocabulary, tokenizer.vocabulary_size()); ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    // No tokenizer of the family has tokens of that length; the depth of a node has 16 bits.
    if (!tokenizer.is_special(id) && !bytes.empty() && bytes.size() < 60'000)
      tokens.emplace_back(bytes, id);
  }
  std::sort(tokens.begin(), tokens.end());
  nodes_.emplace_back();
  std::vector<int32_t> path{0};  // nodes of the last token, by depth
  std::string_view last;
  const auto close = [&](size_t depth) {
    while (path.size() > depth + 1) {
      nodes_[static_cast<size_t>(path.back())].end = static_cast<int32_t>(nodes_.size());
      path.pop_back();
    }
  };
  for (const auto& [bytes, id] : tokens) {
    const size_t most = std::min(bytes.size(), last.size());
    const auto parted =
        std::mismatch(bytes.begin(), bytes.begin() + static_cast<long>(most), last.begin());
    const auto shared = static_cast<size_t>(parted.first - bytes.begin());
    if (shared == bytes.size() && shared == last.size() && !last.empty()) {
      twins_.push_back({id, nodes_[static_cast<size_t>(path.back())].token});
      continue;
    }
    close(shared);
    for (size_t i = shared; i < bytes.size(); ++i) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      Node node;
      node.depth = static_cast<uint16_t>(i + 1);
      node.byte = static_cast<uint8_t>(bytes[i]);
      nodes_.push_back(node);
    }
    nodes_.back().token = id;
    longest_ = std::max(longest_, static_cast<int32_t>(bytes.size()));
    last = bytes;
  }
  close(0);
  nodes_[0].end = static_cast<int32_t>(nodes_.size());
}

}  // namespace qnext::grammar
