#include "server/response_store.h"

#include <algorithm>
#include <utility>

namespace qnext::server {

StoredResponse::StoredResponse(std::string response, std::string input, Pointer previous,
                               std::shared_ptr<std::atomic<size_t>> total)
    : response_(std::move(response)),
      input_(std::move(input)),
      previous_(std::move(previous)),
      total_(std::move(total)) {
  *total_ += bytes();
}

StoredResponse::~StoredResponse() {
  *total_ -= bytes();
  // One after the other: a conversation may have more turns than a stack has room for.
  while (previous_ && previous_.use_count() == 1) {
    const Pointer last = std::move(previous_);
    previous_ = std::move(last->previous_);
  }
}

void ResponseStore::add(const std::string& id, std::string response, std::string input,
                        StoredResponse::Pointer previous) {
  auto stored = std::make_shared<StoredResponse>(std::move(response), std::move(input),
                                                 std::move(previous), bytes_);
  const std::lock_guard lock(mutex_);
  entries_.push_front({id, std::move(stored)});
  by_id_[id] = entries_.begin();
  make_room();
}

StoredResponse::Pointer ResponseStore::find(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->response;
}

bool ResponseStore::erase(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return false;
  entries_.erase(found->second);
  by_id_.erase(found);
  return true;
}

size_t ResponseStore::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

// What others hold would free nothing.
void ResponseStore::make_room() {
  while (entries_.size() > limits_.responses || *bytes_ > limits_.bytes) {
    const auto oldest = std::find_if(entries_.rbegin(), entries_.rend(), [](const Entry& entry) {
      return entry.response.use_count() == 1;
    });
    if (oldest == entries_.rend()) return;
    by_id_.erase(oldest->id);
    entries_.erase(std::next(oldest).base());
  }
}

}  // namespace qnext::server
