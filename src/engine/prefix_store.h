// Cached prefixes on disk: what leaves memory is not lost, and is there after a restart.
//
// One file a snapshot, in a folder of the model's fingerprint. It holds all tokens of its prefix,
// the KV pages from the snapshot before it on (`from`; those above are in that one's file) and the
// state. Files are written by a thread of their own, under another name that becomes theirs once
// they are whole, and carry a checksum: a torn or foreign file is removed, never believed. Where
// the folder outgrows its budget the prefixes that were used least lately go, with those that build
// on them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"

namespace qnext::engine {

class PrefixStore {
 public:
  struct Limits {
    std::string folder;
    size_t bytes = 0;          // of all files of this model
    uint64_t fingerprint = 0;  // of all that the bytes of pages and states depend on
    int64_t page_tokens = 1;
    size_t page_bytes = 0;
    size_t state_bytes = 0;
    size_t waiting_bytes = size_t{1} << 30;  // of files that wait to be written
    // For tests: called by the thread that reads for load(), before each file.
    std::function<void()> reading = nullptr;
  };

  // Makes the folder and reads what is there. Throws Error where that cannot be done.
  explicit PrefixStore(const Limits& limits);
  ~PrefixStore();  // everything that waits has been written
  PrefixStore(const PrefixStore&) = delete;
  PrefixStore& operator=(const PrefixStore&) = delete;

  // One file: tokens [0, tokens) of a prefix, of which it has the pages of [from, tokens).
  struct Segment {
    int64_t from = 0;
    int64_t tokens = 0;
    // The token that the last MTP entry was made with; below zero: the entries are out of step.
    int32_t mtp_next = -1;
    uint64_t hash = 0;    // of the tokens
    uint64_t parent = 0;  // of those before `from`
    size_t bytes = 0;
    int64_t used = 0;  // for the order of use
  };

  // The files that lead to the longest prefix of the prompt that leaves a row to run, in order, the
  // first one of them with the page behind `known_pages` tokens. Empty: nothing is here that is
  // longer than `longer_than`. Counts as a use.
  std::vector<Segment> find(std::span<const int32_t> prompt, int64_t longer_than,
                            int64_t known_pages);
  // The longest prefix of `tokens`, these included, that is here or waits to be written.
  int64_t stored(std::span<const int32_t> tokens) const;

  // The contents of a file. Empty, and the file goes, where it is not whole or of other tokens.
  struct Contents {
    MemoryMap map;
    std::span<const std::byte> pages;  // one after another
    std::span<const std::byte> state;
  };
  std::optional<Contents> read(const Segment& segment, std::span<const int32_t> prompt);

  // Files that a thread of the store's own reads, so that nobody waits for the disk who has other
  // things to do. May outlive the store.
  class Load {
   public:
    bool done() const;
    void wait(std::chrono::milliseconds most) const;
    // Once it is done: what read() gave for the file; only once.
    std::optional<Contents> take(const Segment& segment);

   private:
    friend class PrefixStore;
    std::vector<int32_t> prompt_;
    std::vector<Segment> segments_;
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    bool done_ = false;
    std::map<uint64_t, Contents> contents_;
  };
  std::shared_ptr<Load> load(std::vector<Segment> segments, std::span<const int32_t> prompt);

  // A file to be: the caller fills in pages and state.
  class Draft {
   public:
    std::span<std::byte> page(int64_t index);  // from 0 at `from`
    std::span<std::byte> state();
    const Segment& segment() const { return segment_; }

   private:
    friend class PrefixStore;
    Segment segment_;
    std::string image_;
    size_t pages_at_ = 0;
    size_t page_bytes_ = 0;
    size_t state_at_ = 0;
  };
  Draft draft(std::span<const int32_t> tokens, int64_t from, int32_t mtp_next) const;
  // Hands it to the writer. False where it is dropped: larger than the budget, or, unless the call
  // may wait, too much is before it.
  bool put(Draft draft, bool wait);

  size_t bytes() const;  // of the files

 private:
  std::string path_of(uint64_t hash) const;
  uint64_t hash_of(std::span<const int32_t> tokens) const;
  size_t image_bytes(int64_t tokens, int64_t from) const;
  void read_folder();
  void add_file(const std::string& path);
  void touch(uint64_t hash);
  void forget(uint64_t hash);
  void keep_budget();
  void write_all();
  void read_all();
  std::map<uint64_t, Contents> read_files(const Load& load);

  Limits limits_;
  std::string folder_;  // of this fingerprint
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, Segment> segments_;  // by hash; on disk
  std::deque<Draft> waiting_;             // the first one is being written
  size_t waiting_bytes_ = 0;
  size_t bytes_ = 0;
  int64_t uses_ = 0;
  bool ending_ = false;
  std::deque<std::shared_ptr<Load>> loads_;
  std::thread writer_;
  std::thread reader_;
};

}  // namespace qnext::engine
