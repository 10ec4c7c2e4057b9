#include "text/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace qnext {

namespace {

bool has_class(std::string_view text, size_t offset, uint8_t bit) {
  return unicode::classes(utf8::decode(text.data() + offset)) & bit;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens,
                                     const std::vector<std::string>& contents)
    : tokens_(std::move(tokens)), nodes_(1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    uint32_t node = 0;
    for (const char byte : contents[i]) {
      auto& children = nodes_[node].children;
      const auto child = std::find_if(children.begin(), children.end(),
                                      [byte](const auto& c) { return c.first == byte; });
      if (child != children.end()) {
        node = child->second;
        continue;
      }
      const auto added = static_cast<uint32_t>(nodes_.size());
      children.emplace_back(byte, added);
      nodes_.emplace_back();
      node = added;
    }
    // Of several tokens with one content the first counts.
    if (nodes_[node].token < 0) nodes_[node].token = static_cast<int32_t>(i);
    starts_[static_cast<uint8_t>(contents[i][0])] = true;
  }
  if (std::count(starts_.begin(), starts_.end(), true) == 1)
    only_start_ =
        static_cast<int>(std::find(starts_.begin(), starts_.end(), true) - starts_.begin());
}

bool AddedTokenMatcher::find(std::string_view text, size_t offset, Match& match) const {
  if (tokens_.empty()) return false;
  while (offset < text.size()) {
    if (only_start_ >= 0) {
      const void* at = std::memchr(text.data() + offset, only_start_, text.size() - offset);
      if (!at) return false;
      offset = static_cast<size_t>(static_cast<const char*>(at) - text.data());
    } else {
      while (offset < text.size() && !starts_[static_cast<uint8_t>(text[offset])]) ++offset;
      if (offset == text.size()) return false;
    }
    if (longest_at(text, offset, match)) return true;
    ++offset;
  }
  return false;
}

bool AddedTokenMatcher::longest_at(std::string_view text, size_t offset, Match& match) const {
  bool found = false;
  uint32_t node = 0;
  for (size_t end = offset; end < text.size();) {
    const auto& children = nodes_[node].children;
    const auto child = std::find_if(children.begin(), children.end(),
                                    [&](const auto& c) { return c.first == text[end]; });
    if (child == children.end()) break;
    node = child->second;
    ++end;
    if (nodes_[node].token < 0) continue;
    match = {offset, end, static_cast<size_t>(nodes_[node].token)};
    found = true;
  }
  return found;
}

bool AddedTokenMatcher::accept(const AddedToken& token, std::string_view text, const Match& match,
                               bool parse_special) {
  if (token.special && !parse_special) return false;
  if (!token.single_word) return true;
  const bool word_before =
      match.begin > 0 && has_class(text, utf8::previous(text, match.begin), unicode::word);
  const bool word_after = match.end < text.size() && has_class(text, match.end, unicode::word);
  return !word_before && !word_after;
}

size_t AddedTokenMatcher::strip_left(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit) {
    const size_t before = utf8::previous(text, begin);
    if (!has_class(text, before, unicode::space)) break;
    begin = before;
  }
  // A token before may have taken space that this one starts with.
  return std::max(begin, limit);
}

size_t AddedTokenMatcher::strip_right(std::string_view text, size_t end) {
  while (end < text.size() && has_class(text, end, unicode::space))
    end += utf8::length_of(text[end]);
  return end;
}

}  // namespace qnext
