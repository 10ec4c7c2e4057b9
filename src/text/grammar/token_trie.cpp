#include "text/grammar/token_trie.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "text/utf8.h"

namespace qnext::grammar {
namespace {

// Characters of a text that is plain as a whole; else nothing.
std::optional<int32_t> plain_characters(std::string_view bytes) {
  int32_t count = 0;
  for (size_t at = 0; at < bytes.size(); ++count) {
    const utf8::Character character = utf8::examine(bytes, at);
    if (character.kind != utf8::Kind::valid || !is_plain(character.code_point)) return std::nullopt;
    at += character.length;
  }
  return count;
}

}  // namespace

bool is_plain(char32_t c) {
  return c >= 0x20 && c != '"' && c != '\\' && c != '/' && c != '<';
}

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
  sort_plain_tokens();
}

void TokenTrie::sort_plain_tokens() {
  every_token_.resize((static_cast<size_t>(vocabulary_) + 31) / 32);
  std::vector<std::vector<int32_t>> by_characters;
  every_plain_token_.resize(every_token_.size());
  for (const Node& node : nodes_) {
    if (node.token < 0) continue;
    set_bit(every_token_, node.token);
    const auto characters = plain_characters(tokenizer_->token_bytes(node.token));
    if (!characters) continue;
    set_bit(every_plain_token_, node.token);
    const auto place = static_cast<size_t>(*characters);
    if (by_characters.size() <= place) by_characters.resize(place + 1);
    by_characters[place].push_back(node.token);
  }
  for (const std::vector<int32_t>& tokens : by_characters) {
    plain_tokens_.insert(plain_tokens_.end(), tokens.begin(), tokens.end());
    plain_counts_.push_back(plain_tokens_.size());
  }
  make_other_nodes();
}

size_t TokenTrie::plain_up_to(int32_t characters) const {
  if (plain_counts_.empty()) return 0;
  return plain_counts_[std::min(static_cast<size_t>(characters), plain_counts_.size() - 1)];
}

void TokenTrie::make_other_nodes() {
  // Whether such a token ends at the node or below it.
  std::vector<bool> is_wanted(nodes_.size());
  std::vector<size_t> path{0};
  for (size_t i = 1; i < nodes_.size(); ++i) {
    path.resize(nodes_[i].depth);
    path.push_back(i);
    if (nodes_[i].token < 0 || has_bit(every_plain_token_, nodes_[i].token)) continue;
    for (size_t depth = path.size(); depth-- > 0 && !is_wanted[path[depth]];)
      is_wanted[path[depth]] = true;
  }
  is_wanted[0] = true;
  std::vector<int32_t> place(nodes_.size() + 1);  // of each node, or of the next that is wanted
  int32_t count = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    place[i] = count;
    if (is_wanted[i]) ++count;
  }
  place.back() = count;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (!is_wanted[i]) continue;
    Node node = nodes_[i];
    node.end = place[static_cast<size_t>(node.end)];
    if (node.token >= 0 && has_bit(every_plain_token_, node.token)) node.token = -1;
    other_nodes_.push_back(node);
    other_places_.push_back(static_cast<int32_t>(i));
  }
}

}  // namespace qnext::grammar
