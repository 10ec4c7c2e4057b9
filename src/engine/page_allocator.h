// Numbers of KV pages: which are free, and how many hold each of the others.
//
// A sequence takes pages one by one as it grows, so that pages beyond its present length stay
// untouched (memory that is never written costs nothing on most backends).
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

  // One page; there must be a free one.
  int32_t take();
  // One holder more for pages that are taken.
  void share(std::span<const int32_t> pages);
  int32_t references(int32_t page) const { return references_[static_cast<size_t>(page)]; }
  // One holder less for pages that were taken.
  void give_back(std::span<const int32_t> pages);

 private:
  int32_t total_ = 0;
  std::vector<int32_t> free_;        // used as a stack: a page just freed is still in the caches
  std::vector<int32_t> references_;  // 0: free
};

}  // namespace qnext::engine
