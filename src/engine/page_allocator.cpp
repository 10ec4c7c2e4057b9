#include "engine/page_allocator.h"

#include "base/error.h"

namespace qnext::engine {

PageAllocator::PageAllocator(int32_t pages)
    : total_(pages), references_(static_cast<size_t>(pages)) {
  free_.reserve(static_cast<size_t>(pages));
  for (int32_t page = pages - 1; page >= 0; --page) free_.push_back(page);
}

bool PageAllocator::promise(int32_t pages) {
  QNEXT_CHECK(pages >= 0);
  if (pages > available()) return false;
  promised_ += pages;
  return true;
}

int32_t PageAllocator::take_promised() {
  QNEXT_CHECK(promised_ > 0 && !free_.empty(), "a page was taken without a promise");
  const int32_t page = free_.back();
  free_.pop_back();
  --promised_;
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

void PageAllocator::give_back(std::span<const int32_t> pages, int32_t unused_promise) {
  QNEXT_CHECK(unused_promise >= 0 && unused_promise <= promised_);
  promised_ -= unused_promise;
  for (const int32_t page : pages) {
    QNEXT_CHECK(page >= 0 && page < total_ && references(page) > 0,
                "page {} is given back but was not taken", page);
    if (--references_[static_cast<size_t>(page)] == 0) free_.push_back(page);
  }
}

}  // namespace qnext::engine
