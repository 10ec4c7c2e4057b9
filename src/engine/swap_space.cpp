#include "engine/swap_space.h"

#include <new>
#include <span>

#include "base/error.h"

namespace qnext::engine {

bool SwapSpace::save(Sequence& sequence) {
  const backend::Capabilities& capabilities = backend_.capabilities();
  const size_t page_bytes = capabilities.page_bytes;
  const size_t state_at = sequence.pages.size() * page_bytes;
  const size_t needed = state_at + capabilities.slot_bytes;
  if (needed > limit_ - bytes_) return false;
  StateBytes saved;
  try {
    saved.resize(needed);
  } catch (const std::bad_alloc&) {
    return false;  // the limit was higher than the machine
  }
  const auto bytes = std::span(saved);
  for (size_t i = 0; i < sequence.pages.size(); ++i)
    backend_.export_page(sequence.pages[i], bytes.subspan(i * page_bytes, page_bytes));
  backend_.export_state(sequence.slots.input(), bytes.subspan(state_at));
  sequence.swapped = std::move(saved);
  bytes_ += needed;
  return true;
}

void SwapSpace::restore(Sequence& sequence) {
  const backend::Capabilities& capabilities = backend_.capabilities();
  const size_t page_bytes = capabilities.page_bytes;
  const auto bytes = std::span<const std::byte>(sequence.swapped);
  const size_t state_at = bytes.size() - capabilities.slot_bytes;
  QNEXT_CHECK(state_at == sequence.pages.size() * page_bytes);
  for (size_t i = 0; i < sequence.pages.size(); ++i)
    backend_.import_page(sequence.pages[i], bytes.subspan(i * page_bytes, page_bytes));
  backend_.import_state(sequence.slots.restore(), bytes.subspan(state_at));
  drop(sequence);
}

void SwapSpace::drop(Sequence& sequence) {
  bytes_ -= sequence.swapped.size();
  sequence.swapped = {};
}

}  // namespace qnext::engine
