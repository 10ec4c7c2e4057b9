// The cache of prefixes and its store: what leaves memory, and what comes back.
#include <algorithm>
#include <cstring>
#include <span>

#include "engine/prefix_cache.h"

namespace qnext::engine {

// Short ones first: those that build on them then need not have their pages too.
std::vector<PrefixCache::Node*> PrefixCache::unsaved() const {
  std::vector<Node*> nodes;
  for (const auto& [rank, node] : snapshots_)
    if (!node->saved) nodes.push_back(node);
  std::ranges::sort(nodes, {}, [](const Node* node) { return node->depth; });
  return nodes;
}

bool PrefixCache::save_some() {
  if (!disk_) return false;
  const std::vector<Node*> nodes = unsaved();
  return !nodes.empty() && spill(*nodes.front(), false);
}

// Writes the snapshot, and the pages from the longest stored prefix on. False: too much waits.
bool PrefixCache::spill(Node& node, bool wait) {
  std::vector<const Node*> path;
  for (const Node* on_path = &node; on_path->parent; on_path = on_path->parent)
    path.push_back(on_path);
  std::ranges::reverse(path);
  std::vector<int32_t> tokens;
  for (const Node* on_path : path)
    tokens.insert(tokens.end(), on_path->place->first.begin(), on_path->place->first.end());

  const int64_t from = disk_->store.stored(tokens);
  node.saved = from == node.depth;
  if (node.saved) return true;
  const auto first = static_cast<size_t>(from / limits_.page_tokens);
  int32_t mtp_next = node.mtp_next;
  for (size_t i = first; i + 1 < path.size(); ++i)
    if (path[i]->mtp_next != path[i + 1]->place->first.front()) mtp_next = no_token;
  PrefixStore::Draft draft = disk_->store.draft(tokens, from, mtp_next);
  for (size_t i = first; i < path.size(); ++i)
    disk_->backend.export_page(path[i]->page, draft.page(static_cast<int64_t>(i - first)));
  std::ranges::copy(*node.state, draft.state().begin());
  return node.saved = disk_->store.put(std::move(draft), wait);
}

// Those that lead to more of the prompt than the tree has, whose path this is.
std::vector<PrefixStore::Segment> PrefixCache::missing_files(std::span<const int32_t> prompt,
                                                             const Path& path) const {
  const int64_t known = path.nodes.empty() ? 0 : path.nodes.back()->depth;
  std::vector<PrefixStore::Segment> chain =
      disk_->store.find(prompt, path.snapshot ? path.snapshot->depth : 0, known);
  if (chain.empty()) return {};
  const auto tokens = prompt.first(static_cast<size_t>(chain.back().tokens));
  if (!wants(tokens, disk_->backend.capabilities().slot_bytes)) return {};
  return chain;
}

std::shared_ptr<PrefixStore::Load> PrefixCache::load(std::span<const int32_t> prompt) {
  if (!disk_) return nullptr;
  std::vector<PrefixStore::Segment> files = missing_files(prompt, path_of(prompt));
  return files.empty() ? nullptr : disk_->store.load(std::move(files), prompt);
}

// Where the store has more of the prompt than the tree, whose path this is, the tree has it
// afterwards. False: the tree is as it was; true: it may be another, and the path with it.
bool PrefixCache::bring_back(std::span<const int32_t> prompt, const Path& path,
                             PrefixStore::Load* loaded) {
  const int64_t known = path.nodes.empty() ? 0 : path.nodes.back()->depth;
  const std::vector<PrefixStore::Segment> chain = missing_files(prompt, path);
  if (chain.empty()) return false;
  const int64_t end = chain.back().tokens;
  const auto tokens = prompt.first(static_cast<size_t>(end));
  StateBytes state(disk_->backend.capabilities().slot_bytes);

  // New pages are in step if all before them are; pages that are here keep what they have.
  bool mtp = known < end && path.mtp &&
             (known == 0 || path.nodes.back()->mtp_next == prompt[static_cast<size_t>(known)]);
  for (size_t i = 0; i + 1 < chain.size(); ++i)
    mtp = mtp && chain[i].mtp_next == prompt[static_cast<size_t>(chain[i].tokens)];

  // Those of the path must not go while there is made room for the others.
  std::vector<int32_t> pages;
  for (const Node* node : path.nodes)
    if (node->depth <= end) pages.push_back(node->page);
  pages_.share(pages);
  const auto missing =
      static_cast<int32_t>(std::max((end - known) / limits_.page_tokens, int64_t{0}));
  if (make_room(missing)) {
    for (int32_t i = 0; i < missing; ++i) pages.push_back(pages_.take());
    if (read_pages(prompt, pages, known, chain, loaded, state))
      keep(tokens, pages, std::move(state), mtp ? chain.back().mtp_next : no_token);
  }
  pages_.give_back(pages);
  return true;
}

// The pages behind `known` tokens, and the state at the chain's end. False: a file was damaged.
bool PrefixCache::read_pages(std::span<const int32_t> prompt, std::span<const int32_t> pages,
                             int64_t known, std::span<const PrefixStore::Segment> chain,
                             PrefixStore::Load* loaded, StateBytes& state) {
  for (const PrefixStore::Segment& segment : chain) {
    std::optional<PrefixStore::Contents> contents;
    if (loaded) contents = loaded->take(segment);
    if (!contents) contents = disk_->store.read(segment, prompt);
    if (!contents) return false;
    for (int64_t at = std::max(known, segment.from); at < segment.tokens;
         at += limits_.page_tokens) {
      const auto index = static_cast<size_t>((at - segment.from) / limits_.page_tokens);
      disk_->backend.import_page(
          pages[static_cast<size_t>(at / limits_.page_tokens)],
          contents->pages.subspan(index * limits_.page_bytes, limits_.page_bytes));
    }
    std::ranges::copy(contents->state, state.begin());
  }
  return true;
}

}  // namespace qnext::engine
