// Which sequences run, and what each of them runs in the next batch.
//
// Users take turns: of those that wait, the one with the fewest sequences under way is next, with
// its oldest request, and nothing overtakes that. It enters when there are a place, its slots, and
// pages for its prompt and for what it and the others are likely to answer: as much as was usual
// lately. Answers may grow longer than that. Where a step then finds too few pages, the cache of
// prefixes gives some up, and where that is not enough the youngest sequence makes way: pages and
// state go to the swap space, or, where that is full, are computed again, and it comes back, before
// anything new, when there is room. The oldest never makes way, so everything ends. Every sequence
// that decodes is in every batch, with its drafts. Beside them at most prefill_chunk prompt tokens
// run, so that a long prompt delays nobody's next token by more than one chunk; prompts take turns,
// a chunk each, so that a short one waits for one chunk of each longer one at most. Chunks of
// backend::prompt_cut tokens or more end at multiples of it or with their prompt: so the neighbours
// of a prompt do not decide where it is cut. Smaller chunks are as they were asked for.
//
// With a cache of prefixes a sequence starts behind what is known of its prompt, and what the cache
// holds makes room for it where pages are short. While files are read for it it waits, and others
// go before it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "engine/page_allocator.h"
#include "engine/prefix_cache.h"
#include "engine/sequence.h"
#include "engine/slot_allocator.h"
#include "engine/swap_space.h"

namespace qnext::engine {

struct SchedulerLimits {
  int32_t max_sequences = 1;
  int32_t prefill_chunk = 512;
  int64_t page_tokens = 1;
  double likely_answer = 256;  // tokens, until answers that have ended tell better
  // Slots beside those of the allocator for snapshots in the middle of a chunk. Without one a chunk
  // ends where the snapshot is wanted.
  std::vector<int32_t> snapshot_slots = {};
};

// The rows of one sequence in the next batch.
struct PlannedStep {
  Sequence* sequence = nullptr;
  int32_t rows = 0;     // from position sequence->computed on
  int32_t drafts = 0;   // of them, at the end
  bool draw = false;    // false while more of the prompt is to come, and for embeddings
  int32_t propose = 0;  // drafts wanted for the step after
  // Rows of a prompt after which the state is kept in a slot.
  struct KeptRow {
    int32_t row = 0;
    int32_t slot = 0;
  };
  std::vector<KeptRow> kept_rows = {};
};

class Scheduler {
 public:
  // The allocators must outlive the scheduler; whatever sequences hold is taken and given back
  // here.
  Scheduler(const SchedulerLimits& limits, PageAllocator& pages, SlotAllocator& slots);
  // From now on prompts go on from what it knows; it must outlive the scheduler's last call.
  void use_cache(PrefixCache& cache) { cache_ = &cache; }
  // From now on what makes way is saved there; it must outlive the scheduler's last call.
  void use_swap(SwapSpace& swap) { swap_ = &swap; }

  void enqueue(std::unique_ptr<Sequence> sequence);
  // Admits what fits, gives every planned sequence the pages of its step, makes sequences pause
  // where there are too few, and drops drafts that could not all be used or are wanted no more.
  // Empty: nothing to do.
  std::vector<PlannedStep> plan();
  // Takes a sequence out, running or not, and frees what it held. Null if there is none.
  std::unique_ptr<Sequence> remove(RequestId id);

  std::vector<Sequence*> running_sequences() const;
  Sequence* find(RequestId id);
  // Any sequence whose `cancelled` is set; null if there is none.
  Sequence* find_cancelled();
  // Where no sequence runs, as files are being read for all that wait: until one of them has its
  // files, but not long.
  void wait_for_load() const;
  int32_t waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int32_t paused() const { return static_cast<int32_t>(paused_.size()); }
  int32_t running() const { return static_cast<int32_t>(running_.size()); }

  // The pages of a sequence that grows to `tokens`.
  int32_t pages_for(int64_t tokens) const;

 private:
  using Sequences = std::vector<std::unique_ptr<Sequence>>;

  void admit();
  std::deque<std::unique_ptr<Sequence>>::iterator next_waiting();
  int32_t loading() const;
  bool begin_load(Sequence& sequence);
  bool enter(Sequence& sequence);
  bool come_back(Sequence& sequence);
  void make_way();
  bool make_room(int32_t pages);
  int32_t likely_pages(const Sequence& sequence) const;
  int32_t likely_growth() const;
  std::vector<PlannedStep> plan_steps();
  int32_t missing_pages(const PlannedStep& step) const;
  void end_turn(const std::vector<PlannedStep>& steps);
  void release(Sequence& sequence);
  Sequence* find_if(const std::function<bool(const Sequence&)>& wanted);

  SchedulerLimits limits_;
  PageAllocator& pages_;
  SlotAllocator& slots_;
  PrefixCache* cache_ = nullptr;
  SwapSpace* swap_ = nullptr;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  Sequences paused_;     // the oldest first
  Sequences running_;    // those that prefill in the order of turns
  bool full_ = false;    // who is next did not fit, and nothing has ended or come since
  double usual_answer_;  // tokens
};

}  // namespace qnext::engine
