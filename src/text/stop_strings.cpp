#include "text/stop_strings.h"

#include <utility>

#include "base/error.h"

namespace qnext {

namespace {

uint64_t edge(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
}

}  // namespace

StopStrings::StopStrings(std::span<const std::string> strings) : nodes_(1) {
  for (size_t i = 0; i < strings.size(); ++i) add(strings[i], i);
  link();
}

void StopStrings::add(std::string_view string, size_t place) {
  if (string.empty()) fail("stop string {} is empty; leave it out", place);
  if (string.size() >= none - nodes_.size()) fail("stop string {} is too long", place);
  lengths_.push_back(static_cast<uint32_t>(string.size()));
  uint32_t node = 0;
  for (const char byte : string) {
    const auto [child, is_new] =
        children_.emplace(edge(node, byte), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.push_back({0, nodes_[node].depth + 1, -1});
    node = child->second;
  }
  if (nodes_[node].string < 0) nodes_[node].string = static_cast<int32_t>(place);
}

// Breadth first: the fallback of a node is shorter, so it is complete before the node needs it.
void StopStrings::link() {
  std::vector<std::vector<std::pair<char, uint32_t>>> edges(nodes_.size());
  for (const auto& [key, node] : children_)
    edges[key >> 8].emplace_back(static_cast<char>(static_cast<uint8_t>(key & 0xFF)), node);
  std::vector<uint32_t> queue{0};
  for (size_t i = 0; i < queue.size(); ++i) {
    const uint32_t parent = queue[i];
    for (const auto& [byte, node] : edges[parent]) {
      Node& here = nodes_[node];
      if (parent != 0) here.fallback = advance(nodes_[parent].fallback, byte);
      if (here.string < 0) here.string = nodes_[here.fallback].string;
      queue.push_back(node);
    }
  }
}

uint32_t StopStrings::child(uint32_t node, char byte) const {
  const auto it = children_.find(edge(node, byte));
  return it == children_.end() ? none : it->second;
}

uint32_t StopStrings::advance(uint32_t node, char byte) const {
  for (;;) {
    const uint32_t next = child(node, byte);
    if (next != none) return next;
    if (node == 0) return 0;
    node = nodes_[node].fallback;
  }
}

std::string StopStrings::push(std::string_view text) {
  if (met_) return {};
  for (const char byte : text) {
    text_.push_back(byte);
    node_ = advance(node_, byte);
    if (nodes_[node_].string < 0) continue;
    met_ = static_cast<size_t>(nodes_[node_].string);
    return take(lengths_[*met_]);
  }
  return take(nodes_[node_].depth);
}

// All pending text but the last `kept` bytes.
std::string StopStrings::take(size_t kept) {
  const size_t end = text_.size() - kept;
  std::string out = text_.substr(taken_, end - taken_);
  taken_ = end;
  // Moving what is kept only once as much has been taken keeps the whole linear.
  if (taken_ >= kept) {
    text_.erase(0, taken_);
    taken_ = 0;
  }
  return out;
}

std::string StopStrings::finish() {
  std::string rest = met_ ? std::string() : take(0);
  text_.clear();
  taken_ = 0;
  node_ = 0;
  met_.reset();
  return rest;
}

}  // namespace qnext
