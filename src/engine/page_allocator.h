// Numbers of KV pages: which are free, and which are spoken for.
//
// A sequence is admitted on a promise of all the pages that it may ever need, and takes them one by
// one as it grows. So a running sequence never fails for want of a page, whatever the others do,
// and pages beyond its present length stay untouched (memory that is never written costs nothing
// on most backends).
//
// A full page may have several holders: sequences that begin alike, and the cache of prefixes. It
// is free again when the last one has given it back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qnext::engine {

class PageAllocator {
 public:
  explicit PageAllocator(int32_t pages);

  int32_t total() const { return total_; }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  // Free pages that are promised to nobody.
  int32_t available() const { return free() - promised_; }

  // Sets pages aside; false, and nothing changes, where fewer are available.
  bool promise(int32_t pages);
  // One page out of an earlier promise.
  int32_t take_promised();
  // One holder more for pages that are taken.
  void share(std::span<const int32_t> pages);
  int32_t references(int32_t page) const { return references_[static_cast<size_t>(page)]; }
  // One holder less for pages that were taken, and what is left of the promise.
  void give_back(std::span<const int32_t> pages, int32_t unused_promise);

 private:
  int32_t total_ = 0;
  int32_t promised_ = 0;
  std::vector<int32_t> free_;        // used as a stack: a page just freed is still in the caches
  std::vector<int32_t> references_;  // 0: free
};

}  // namespace qnext::engine
