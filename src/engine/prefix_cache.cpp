#include "engine/prefix_cache.h"

#include <algorithm>

#include "base/error.h"

namespace qnext::engine {

bool PrefixCache::Less::operator()(std::span<const int32_t> a, std::span<const int32_t> b) const {
  return std::ranges::lexicographical_compare(a, b);
}

PrefixCache::PrefixCache(const Limits& limits, PageAllocator& pages, std::optional<Disk> disk)
    : limits_(limits), pages_(pages), disk_(disk), root_(std::make_unique<Node>()) {}

PrefixCache::~PrefixCache() {
  if (disk_)
    for (Node* node : unsaved()) spill(*node, true);
  // From the leaves up: a path may have thousands of nodes, too many to end inside one another.
  while (!snapshots_.empty()) drop_snapshot(*snapshots_.begin()->second);
}

std::span<const int32_t> PrefixCache::block(std::span<const int32_t> tokens, int64_t index) const {
  return tokens.subspan(static_cast<size_t>(index * limits_.page_tokens),
                        static_cast<size_t>(limits_.page_tokens));
}

// One row of the prompt at least must run: it draws the first token.
PrefixCache::Path PrefixCache::path_of(std::span<const int32_t> prompt) const {
  Path path;
  Node* node = root_.get();
  const int64_t blocks = (std::ssize(prompt) - 1) / limits_.page_tokens;
  for (int64_t i = 0; i < blocks; ++i) {
    const std::span<const int32_t> wanted = block(prompt, i);
    const auto child = node->children.find(wanted);
    if (child == node->children.end()) break;
    path.mtp = path.mtp && (i == 0 || node->mtp_next == wanted.front());
    node = child->second.get();
    path.nodes.push_back(node);
    if (!node->state) continue;
    path.snapshot = node;
    path.snapshot_mtp = path.mtp && node->mtp_next == prompt[static_cast<size_t>(node->depth)];
  }
  return path;
}

CachedPrefix PrefixCache::find(std::span<const int32_t> prompt, PrefixStore::Load* loaded) {
  Path path = path_of(prompt);
  if (disk_ && bring_back(prompt, path, loaded)) path = path_of(prompt);
  CachedPrefix found;
  if (!path.nodes.empty()) found.known_tokens = path.nodes.back()->depth;
  if (!path.snapshot) return found;
  found.tokens = path.snapshot->depth;
  found.state = path.snapshot->state;
  found.mtp = path.snapshot_mtp;
  for (const Node* node : path.nodes)
    if (node->depth <= found.tokens) found.pages.push_back(node->page);
  pages_.share(found.pages);
  use(*path.snapshot);
  return found;
}

PrefixCache::Node* PrefixCache::descend(std::span<const int32_t> tokens) const {
  Node* node = root_.get();
  for (int64_t i = 0; i < std::ssize(tokens) / limits_.page_tokens; ++i) {
    const auto child = node->children.find(block(tokens, i));
    if (child == node->children.end()) return nullptr;
    node = child->second.get();
  }
  return node;
}

bool PrefixCache::wants(std::span<const int32_t> tokens, size_t state_bytes) const {
  const size_t pages = tokens.size() / static_cast<size_t>(limits_.page_tokens);
  if (pages == 0 || state_bytes + pages * limits_.page_bytes > limits_.bytes) return false;
  const Node* node = descend(tokens);
  return !node || !node->state;
}

void PrefixCache::keep(std::span<const int32_t> tokens, std::span<const int32_t> pages,
                       StateBytes state, int32_t mtp_next) {
  if (!wants(tokens, state.size())) return;
  Node& node = grow(tokens, pages, mtp_next);
  bytes_ += state.size();
  node.state = std::make_shared<const StateBytes>(std::move(state));
  use(node);
  while (bytes_ > limits_.bytes) {
    // It alone would fit, so there is another one.
    auto least = snapshots_.begin();
    if (least->second == &node) ++least;
    drop_snapshot(*least->second);
  }
}

// The node at the end of `tokens`, and all that were missing on the way to it.
PrefixCache::Node& PrefixCache::grow(std::span<const int32_t> tokens,
                                     std::span<const int32_t> pages, int32_t mtp_next) {
  const int64_t blocks = std::ssize(tokens) / limits_.page_tokens;
  QNEXT_CHECK(blocks > 0 && blocks * limits_.page_tokens == std::ssize(tokens) &&
              blocks <= std::ssize(pages));
  Node* node = root_.get();
  for (int64_t i = 0; i < blocks; ++i) {
    const std::span<const int32_t> own = block(tokens, i);
    const std::span<const int32_t> page = pages.subspan(static_cast<size_t>(i), 1);
    int32_t next = mtp_next;
    if (next != no_token && i + 1 < blocks) next = block(tokens, i + 1).front();
    auto child = node->children.find(own);
    if (child == node->children.end()) {
      child = node->children.emplace(std::vector(own.begin(), own.end()), std::make_unique<Node>())
                  .first;
      Node& made = *child->second;
      made.parent = node;
      made.place = child;
      made.depth = node->depth + limits_.page_tokens;
      made.page = page.front();
      made.mtp_next = next;
      pages_.share(page);
      bytes_ += limits_.page_bytes;
      ++held_pages_;
    } else if (child->second->mtp_next == no_token && next != no_token) {
      // The same keys and values, and MTP entries too.
      Node& known = *child->second;
      pages_.share(page);
      pages_.give_back({&known.page, 1});
      known.page = page.front();
      known.mtp_next = next;
    }
    node = child->second.get();
  }
  return *node;
}

// The snapshot has been of use just now.
void PrefixCache::use(Node& node) {
  const Node* above = node.parent;
  while (above->parent && !above->state) above = above->parent;
  const int64_t saved = node.depth - above->depth;
  const auto pages = static_cast<size_t>(saved / limits_.page_tokens);
  const auto cost = static_cast<double>(node.state->size() + pages * limits_.page_bytes);
  snapshots_.erase(node.rank);
  node.rank = {age_ + static_cast<double>(saved) / std::max(cost, 1.0), ++uses_};
  snapshots_.emplace(node.rank, &node);
}

void PrefixCache::drop_snapshot(Node& node) {
  if (disk_ && !node.saved) spill(node, false);
  age_ = node.rank.first;
  snapshots_.erase(node.rank);
  bytes_ -= node.state->size();
  node.state.reset();
  node.saved = false;
  drop_leaves(&node);
}

// Removes the node and those above it, as far as they lead nowhere.
void PrefixCache::drop_leaves(Node* node) {
  while (node->parent && !node->state && node->children.empty()) {
    pages_.give_back({&node->page, 1});
    bytes_ -= limits_.page_bytes;
    --held_pages_;
    Node* parent = node->parent;
    parent->children.erase(node->place);
    node = parent;
  }
}

// Those that only the tree holds.
int32_t PrefixCache::freeable_pages() const {
  int32_t pages = 0;
  std::vector<const Node*> left = {root_.get()};
  while (!left.empty()) {
    const Node* node = left.back();
    left.pop_back();
    if (node->parent && pages_.references(node->page) == 1) ++pages;
    for (const auto& [tokens, child] : node->children) left.push_back(child.get());
  }
  return pages;
}

bool PrefixCache::make_room(int32_t pages) {
  if (pages_.free() >= pages) return true;
  if (pages_.free() + freeable_pages() < pages) return false;
  while (pages_.free() < pages) drop_snapshot(*snapshots_.begin()->second);
  return true;
}

}  // namespace qnext::engine
