#include "engine/page_allocator.h"

#include "base/error.h"

namespace qnext::engine {

PageAllocator::PageAllocator(int32_t pages)
    : total_(pages), references_(static_cast<size_t>(pages)) {
  free_.reserve(static_cast<size_t>(pages));
  for (int32_t page = pages - 1; page >= 0; --page) free_.push_back(page);
}

int32_t PageAllocator::take() {
  QNEXT_CHECK(!free_.empty(), "a page is wanted, but none is free");
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

void PageAllocator::share(std::span<const int32_t> pages) {
  for (const int32_t page : pages) {
    QNEXT_CHECK(page >= 0 && page < total_ && references(page) > 0,
                "page {} is shared but was not taken", page);
    ++references_[static_cast<size_t>(page)];
  }
}

void PageAllocator::give_back(std::span<const int32_t> pages) {
  for (const int32_t page : pages) {
    QNEXT_CHECK(page >= 0 && page < total_ && references(page) > 0,
                "page {} is given back but was not taken", page);
    if (--references_[static_cast<size_t>(page)] == 0) free_.push_back(page);
  }
}

}  // namespace qnext::engine
