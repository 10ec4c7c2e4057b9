#include "engine/scheduler.h"

#include <algorithm>
#include <span>
#include <utility>

#include "backend/step.h"
#include "base/error.h"

namespace qnext::engine {
namespace {

// How many drafts to ask for, once a step over `rows` rows from position `first` has run. `left`
// tokens may still be drawn, that step's included: it draws one at least, and the last one needs no
// draft. The page table covers no position beyond the limit.
int32_t drafts_worth_proposing(const Sequence& sequence, int32_t rows) {
  const int64_t left = sequence.limit - sequence.length();
  const int64_t positions = sequence.limit - (sequence.computed + rows);
  const int64_t wanted = std::min({int64_t{sequence.speculation.wanted}, left - 2, positions});
  return static_cast<int32_t>(std::max(wanted, int64_t{0}));
}

PlannedStep plan_decode(Sequence& sequence) {
  // The step draws one token more than it accepts drafts.
  const int64_t left = sequence.limit - sequence.length();
  QNEXT_CHECK(left >= 1);
  const auto most = std::min(left - 1, int64_t{sequence.speculation.wanted});
  if (std::ssize(sequence.drafts) > most) sequence.drafts.resize(static_cast<size_t>(most));
  const auto drafts = static_cast<int32_t>(sequence.drafts.size());
  return {.sequence = &sequence,
          .rows = 1 + drafts,
          .drafts = drafts,
          .draw = true,
          .propose = drafts_worth_proposing(sequence, 1 + drafts)};
}

// Rows of the prompt that may run now, `budget` at most; 0: too few to reach a place to cut at.
int32_t prefill_rows(const Sequence& sequence, int32_t budget, int32_t chunk) {
  const int64_t left = sequence.prompt_tokens - sequence.computed;
  if (left <= budget) return static_cast<int32_t>(left);
  if (chunk < backend::prompt_cut) return budget;
  const int64_t end = sequence.computed + budget;
  return static_cast<int32_t>(
      std::max(end - end % backend::prompt_cut - sequence.computed, int64_t{0}));
}

// `free_slots` for snapshots, of this batch. Where there is none left the chunk ends early.
PlannedStep plan_prefill(Sequence& sequence, int32_t rows, std::span<const int32_t>& free_slots) {
  PlannedStep step{.sequence = &sequence, .rows = rows};
  for (const int64_t wanted : sequence.snapshots) {
    const int64_t row = wanted - sequence.computed - 1;
    if (row < 0 || row >= step.rows - 1) continue;  // past, later, or the state at the end
    if (free_slots.empty()) {
      step.rows = static_cast<int32_t>(row) + 1;
      break;
    }
    step.kept_rows.push_back({static_cast<int32_t>(row), free_slots.front()});
    free_slots = free_slots.subspan(1);
  }
  step.draw = !sequence.embedding && step.rows == sequence.prompt_tokens - sequence.computed;
  step.propose = step.draw ? drafts_worth_proposing(sequence, step.rows) : 0;
  return step;
}

// Snapshots are worth taking where prompts part, and at the end of this one, which the next turn of
// a conversation begins with.
void start_behind(Sequence& sequence, CachedPrefix prefix, int64_t page_tokens) {
  const int64_t end = (sequence.prompt_tokens - 1) / page_tokens * page_tokens;
  for (const int64_t wanted : {prefix.known_tokens, end})
    if (wanted > prefix.tokens && (sequence.snapshots.empty() || wanted > sequence.snapshots[0]))
      sequence.snapshots.push_back(wanted);
  if (prefix.tokens == 0) return;
  sequence.computed = prefix.tokens;
  sequence.statistics.cached_tokens = prefix.tokens;
  sequence.pages = std::move(prefix.pages);
  sequence.restored = std::move(prefix.state);
  if (prefix.mtp) return;
  sequence.speculation.head_in_step = false;
  sequence.speculation.wanted = 0;
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, PageAllocator& pages, SlotAllocator& slots)
    : limits_(limits), pages_(pages), slots_(slots) {}

void Scheduler::enqueue(std::unique_ptr<Sequence> sequence) {
  waiting_.push_back(std::move(sequence));
}

int32_t Scheduler::pages_for(int64_t tokens) const {
  return static_cast<int32_t>((tokens + limits_.page_tokens - 1) / limits_.page_tokens);
}

void Scheduler::admit() {
  while (!waiting_.empty() && running() < limits_.max_sequences && take_memory(*waiting_.front())) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  QNEXT_CHECK(waiting_.empty() || !running_.empty(), "a request waits for more than there is");
}

// All that the sequence may ever need, less what the cache has for it. False: it has to wait.
bool Scheduler::take_memory(Sequence& sequence) {
  const int32_t slots = sequence.speculate + 1;
  if (slots > slots_.free()) return false;
  CachedPrefix prefix;
  const bool cached = cache_ && !sequence.embedding;  // which needs the states of every token
  if (cached) prefix = cache_->find(sequence.tokens);
  const int32_t pages = pages_for(sequence.limit) - static_cast<int32_t>(prefix.pages.size());
  if (!pages_.promise(pages) && !(cache_ && cache_->make_room(pages) && pages_.promise(pages))) {
    pages_.give_back(prefix.pages, 0);
    return false;
  }
  sequence.promised_pages = pages;
  sequence.slots = SequenceSlots(slots_.take(slots));
  if (cached) start_behind(sequence, std::move(prefix), limits_.page_tokens);
  return true;
}

void Scheduler::take_pages(const PlannedStep& step) {
  Sequence& sequence = *step.sequence;
  const int32_t needed = pages_for(sequence.computed + step.rows + step.propose);
  while (std::ssize(sequence.pages) < needed) {
    sequence.pages.push_back(pages_.take_promised());
    --sequence.promised_pages;
  }
}

std::vector<PlannedStep> Scheduler::plan() {
  admit();
  std::vector<PlannedStep> steps;
  int32_t budget = limits_.prefill_chunk;
  std::span<const int32_t> snapshot_slots = limits_.snapshot_slots;
  const Sequence* unfinished = nullptr;  // its turn is over, its prompt is not
  for (const auto& sequence : running_) {
    if (!sequence->prefilling()) {
      steps.push_back(plan_decode(*sequence));
    } else if (const int32_t rows = prefill_rows(*sequence, budget, limits_.prefill_chunk)) {
      steps.push_back(plan_prefill(*sequence, rows, snapshot_slots));
      budget -= steps.back().rows;
      if (!steps.back().draw) unfinished = sequence.get();
    }
  }
  if (unfinished) {
    const auto turn = std::ranges::find(running_, unfinished, &std::unique_ptr<Sequence>::get);
    std::rotate(turn, turn + 1, running_.end());
  }
  for (const PlannedStep& step : steps) take_pages(step);
  return steps;
}

std::unique_ptr<Sequence> Scheduler::remove(RequestId id) {
  const auto take_from = [id](auto& list) -> std::unique_ptr<Sequence> {
    const auto found = std::ranges::find(list, id, [](const auto& entry) { return entry->id; });
    if (found == list.end()) return nullptr;
    std::unique_ptr<Sequence> sequence = std::move(*found);
    list.erase(found);
    return sequence;
  };
  std::unique_ptr<Sequence> sequence = take_from(running_);
  if (!sequence) return take_from(waiting_);
  pages_.give_back(sequence->pages, sequence->promised_pages);
  slots_.give_back(sequence->slots.all());
  return sequence;
}

std::vector<Sequence*> Scheduler::running_sequences() const {
  std::vector<Sequence*> sequences;
  for (const auto& sequence : running_) sequences.push_back(sequence.get());
  return sequences;
}

Sequence* Scheduler::find_if(const std::function<bool(const Sequence&)>& wanted) {
  for (const auto& sequence : running_)
    if (wanted(*sequence)) return sequence.get();
  for (const auto& sequence : waiting_)
    if (wanted(*sequence)) return sequence.get();
  return nullptr;
}

Sequence* Scheduler::find(RequestId id) {
  return find_if([id](const Sequence& sequence) { return sequence.id == id; });
}

Sequence* Scheduler::find_cancelled() {
  return find_if([](const Sequence& sequence) { return sequence.cancelled; });
}

}  // namespace qnext::engine
