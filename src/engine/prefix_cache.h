// What earlier requests have computed, for later ones that begin alike.
//
// A tree over tokens with a node for each KV page. A node has the tokens of its page, the page and,
// now and then, a snapshot: the recurrent state after its last token, in host memory. That state
// cannot be rolled back, so a prompt goes on from the deepest snapshot on its path, and only there:
// it shares the pages up to it, which nobody writes again, and gets a copy of the state.
//
//   root ── "You are a helpful ..." ── "... assistant. Use" * ── "these tools: ..." *
//                                                             └─ "no tools. ..." ─── "..." *
//
// Every leaf has a snapshot (*). All together stay within a budget of bytes: of states, and of the
// pages that the tree holds. Where room is needed the least useful snapshot goes, and with it the
// pages that led to it alone: usefulness is the tokens it saves over the next snapshot above it for
// each byte it takes, counted from the last time it was used (GreedyDual-Size; Cao and Irani 1997,
// "Cost-aware WWW proxy caching algorithms").
//
// With a store what goes is written to disk first, and comes back when a prompt wants it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "backend/step.h"
#include "engine/page_allocator.h"
#include "engine/prefix_store.h"

namespace qnext::engine {

using StateBytes = std::vector<std::byte>;  // Backend::export_state

// Where a prompt can go on.
struct CachedPrefix {
  int64_t tokens = 0;                       // whole pages, fewer than the prompt; 0: from its start
  std::vector<int32_t> pages = {};          // one reference each is the caller's
  std::shared_ptr<const StateBytes> state;  // null without tokens
  // The pages' MTP entries are those of this prompt, the last one's following token included.
  bool mtp = false;
  // Of the prompt, so many tokens are in the tree, with a snapshot or without: whole pages, fewer
  // than the prompt. A snapshot there would have been of use.
  int64_t known_tokens = 0;
};

class PrefixCache {
 public:
  struct Limits {
    int64_t page_tokens = 1;
    size_t page_bytes = 0;
    size_t bytes = 0;  // 0: nothing is kept
  };

  // Where snapshots go that leave memory; the backend has their pages' bytes.
  struct Disk {
    backend::Backend& backend;
    PrefixStore& store;
  };

  // The allocator, the backend and the store must outlive the cache.
  PrefixCache(const Limits& limits, PageAllocator& pages, std::optional<Disk> disk = {});
  ~PrefixCache();  // all are saved
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The files that find() will want to read; null: none. Where they have been read before it is
  // called it does not wait for the disk.
  std::shared_ptr<PrefixStore::Load> load(std::span<const int32_t> prompt);
  CachedPrefix find(std::span<const int32_t> prompt, PrefixStore::Load* loaded = nullptr);

  // Whether a snapshot after these tokens would be new and could be kept.
  bool wants(std::span<const int32_t> tokens, size_t state_bytes) const;
  // Keeps the state after `tokens`, whole pages of them, and shares `pages`, which hold them.
  // `mtp_next`: the token behind them, where their MTP entries are in step with it; else no_token.
  void keep(std::span<const int32_t> tokens, std::span<const int32_t> pages, StateBytes state,
            int32_t mtp_next);
  static constexpr int32_t no_token = -1;

  // Lets go of what is least useful until so many pages are available. False, and nothing goes,
  // where that cannot be reached.
  bool make_room(int32_t pages);

  // Hands a snapshot that is not on disk to the store. False: there is none, or no store, or too
  // much waits there.
  bool save_some();

  size_t bytes() const { return bytes_; }
  int32_t pages() const { return held_pages_; }

 private:
  struct Node;
  struct Less {
    using is_transparent = void;
    bool operator()(std::span<const int32_t> a, std::span<const int32_t> b) const;
  };
  // Usefulness and, among equals, the last use.
  using Rank = std::pair<double, uint64_t>;
  using Children = std::map<std::vector<int32_t>, std::unique_ptr<Node>, Less>;

  struct Node {
    Node* parent = nullptr;
    Children::const_iterator place;  // in the parent
    int64_t depth = 0;               // tokens from the root to the end of this node
    int32_t page = -1;
    // The token that the page's last MTP entry was made with; no_token: its entries are out of
    // step.
    int32_t mtp_next = no_token;
    std::shared_ptr<const StateBytes> state;
    Rank rank;  // of the snapshot
    bool saved = false;
    Children children;
  };
  // What the tree has of a prompt.
  struct Path {
    std::vector<Node*> nodes;
    Node* snapshot = nullptr;   // the deepest
    bool mtp = true;            // all entries are in step, but for the last node's last one
    bool snapshot_mtp = false;  // all, down to the snapshot
  };

  Path path_of(std::span<const int32_t> prompt) const;
  std::span<const int32_t> block(std::span<const int32_t> tokens, int64_t index) const;
  Node* descend(std::span<const int32_t> tokens) const;
  Node& grow(std::span<const int32_t> tokens, std::span<const int32_t> pages, int32_t mtp_next);
  void use(Node& node);
  void drop_snapshot(Node& node);
  void drop_leaves(Node* node);
  int32_t freeable_pages() const;
  // prefix_cache_disk.cpp
  bool spill(Node& node, bool wait);
  std::vector<Node*> unsaved() const;
  std::vector<PrefixStore::Segment> missing_files(std::span<const int32_t> prompt,
                                                  const Path& path) const;
  bool bring_back(std::span<const int32_t> prompt, const Path& path, PrefixStore::Load* loaded);
  bool read_pages(std::span<const int32_t> prompt, std::span<const int32_t> pages, int64_t known,
                  std::span<const PrefixStore::Segment> chain, PrefixStore::Load* loaded,
                  StateBytes& state);

  Limits limits_;
  PageAllocator& pages_;
  std::optional<Disk> disk_;
  std::unique_ptr<Node> root_;
  std::map<Rank, Node*> snapshots_;
  double age_ = 0;     // usefulness of the last one that went
  uint64_t uses_ = 0;  // of all snapshots
  size_t bytes_ = 0;
  int32_t held_pages_ = 0;
};

}  // namespace qnext::engine
