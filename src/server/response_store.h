// Responses that later requests may go on from (`previous_response_id`) or ask for again.
//
// In memory, and gone with the server. Bounded: beyond so many responses or bytes those go first
// that were used longest ago. A conversation is a chain, each turn holding the ones before it: its
// newest turn goes first.
#pragma once

#include <atomic>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace qnext::server {

class StoredResponse {
 public:
  using Pointer = std::shared_ptr<StoredResponse>;

  // `total` counts the bytes of all that live.
  StoredResponse(std::string response, std::string input, Pointer previous,
                 std::shared_ptr<std::atomic<size_t>> total);
  ~StoredResponse();
  StoredResponse(const StoredResponse&) = delete;
  StoredResponse& operator=(const StoredResponse&) = delete;

  const std::string& response() const { return response_; }  // the object that clients see, JSON
  const std::string& input() const { return input_; }  // the items of its own request, a JSON list
  const Pointer& previous() const { return previous_; }  // the turn before, or null

 private:
  size_t bytes() const { return sizeof(*this) + response_.size() + input_.size(); }

  const std::string response_;
  const std::string input_;
  Pointer previous_;
  const std::shared_ptr<std::atomic<size_t>> total_;
};

struct ResponseStoreLimits {
  size_t responses = 10000;
  size_t bytes = size_t{256} << 20;
};

// Safe to call from many threads.
class ResponseStore {
 public:
  explicit ResponseStore(const ResponseStoreLimits& limits = {}) : limits_(limits) {}

  // `previous` may be null.
  void add(const std::string& id, std::string response, std::string input,
           StoredResponse::Pointer previous);
  // Null where there is none (any more). Counts as a use.
  StoredResponse::Pointer find(const std::string& id);
  // False: there is none. Turns that go on from it keep it for themselves.
  bool erase(const std::string& id);

  size_t size() const;
  size_t bytes() const { return *bytes_; }

 private:
  struct Entry {
    std::string id;
    StoredResponse::Pointer response;
  };
  void make_room();

  const ResponseStoreLimits limits_;
  const std::shared_ptr<std::atomic<size_t>> bytes_ = std::make_shared<std::atomic<size_t>>(0);
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the one that was used last comes first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_id_;
};

}  // namespace qnext::server
