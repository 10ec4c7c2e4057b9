#include "engine/scheduler.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "backend/step.h"
#include "base/error.h"

namespace qnext::engine {
namespace {

constexpr double usual_weight = 1.0 / 16;  // of the newest answer's length

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
  const int64_t left = sequence.prefill_tokens - sequence.computed;
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
  step.draw = !sequence.embedding && step.rows == sequence.prefill_tokens - sequence.computed;
  step.propose = step.draw ? drafts_worth_proposing(sequence, step.rows) : 0;
  return step;
}

// Snapshots are worth taking where prompts part or are likely to, and at the end of this one, which
// the next turn of a conversation begins with. Of the likely places the first, behind what all
// conversations share, and the last two, for a last message that is written anew.
std::vector<int64_t> snapshot_places(const Sequence& sequence, const CachedPrefix& prefix,
                                     int64_t page_tokens) {
  // A prompt that ends with a page has two ends: one for the next turn, one to be asked again from,
  // as that takes a row to run.
  std::vector<int64_t> wanted = {prefix.known_tokens, sequence.prefill_tokens - 1,
                                 sequence.prefill_tokens};
  const std::vector<int64_t>& likely = sequence.boundaries;
  for (size_t i = 0; i < likely.size(); ++i)
    if (i == 0 || i + 2 >= likely.size()) wanted.push_back(likely[i]);
  for (int64_t& place : wanted) place = place / page_tokens * page_tokens;
  std::ranges::sort(wanted);
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  std::erase_if(wanted, [&](int64_t place) {
    return place <= prefix.tokens || place > sequence.prefill_tokens;
  });
  return wanted;
}

void start_behind(Sequence& sequence, CachedPrefix prefix, int64_t page_tokens) {
  sequence.snapshots = snapshot_places(sequence, prefix, page_tokens);
  if (prefix.tokens == 0) return;
  sequence.computed = prefix.tokens;
  if (sequence.length() == sequence.prompt_tokens)
    sequence.statistics.cached_tokens = prefix.tokens;
  sequence.pages = std::move(prefix.pages);
  sequence.restored = std::move(prefix.state);
  if (prefix.mtp) return;
  sequence.speculation.head_in_step = false;
  sequence.speculation.wanted = 0;
}

// All of its tokens are to run again, as a prompt.
void start_anew(Sequence& sequence) {
  sequence.computed = 0;
  sequence.prefill_tokens = sequence.length();
  sequence.drafts.clear();
  sequence.restored.reset();
  sequence.snapshots.clear();
  if (sequence.embedding) sequence.embedding->start_anew();
}

bool has_begun(const Sequence& sequence) {
  return sequence.slots.input() != backend::no_slot && !sequence.restored;
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, PageAllocator& pages, SlotAllocator& slots)
    : limits_(limits), pages_(pages), slots_(slots), usual_answer_(limits.likely_answer) {}

void Scheduler::enqueue(std::unique_ptr<Sequence> sequence) {
  waiting_.push_back(std::move(sequence));
  full_ = false;
}

int32_t Scheduler::pages_for(int64_t tokens) const {
  return static_cast<int32_t>((tokens + limits_.page_tokens - 1) / limits_.page_tokens);
}

// --- who runs --------------------------------------------------------------------------------

void Scheduler::admit() {
  // Those for which files are read have a place each.
  int32_t loads = 0;
  while (!full_ && running() + (loads = loading()) < limits_.max_sequences) {
    if (!paused_.empty()) {
      full_ = !come_back(*paused_.front());
      if (full_) break;
      running_.push_back(std::move(paused_.front()));
      paused_.erase(paused_.begin());
    } else if (!waiting_.empty()) {
      const auto next = next_waiting();
      if (next == waiting_.end()) break;
      if (begin_load(**next)) continue;
      full_ = !enter(**next);
      if (full_) break;
      running_.push_back(std::move(*next));
      waiting_.erase(next);
    } else {
      break;
    }
  }
  QNEXT_CHECK(!running_.empty() || (waiting_.empty() && paused_.empty()) || loads > 0,
              "a request waits for more than there is");
}

// The oldest of the user who has least under way, of those that wait for no file; waiting_.end():
// there is none.
std::deque<std::unique_ptr<Sequence>>::iterator Scheduler::next_waiting() {
  std::map<std::string_view, int32_t> under_way;
  for (const auto& sequence : running_) ++under_way[sequence->user];
  auto next = waiting_.end();
  for (auto one = waiting_.begin(); one != waiting_.end(); ++one) {
    const bool is_earlier =
        next == waiting_.end() || under_way[(*one)->user] < under_way[(*next)->user];
    if (is_earlier && !(*one)->loading()) next = one;
  }
  return next;
}

int32_t Scheduler::loading() const {
  return static_cast<int32_t>(
      std::ranges::count_if(waiting_, [](const auto& sequence) { return sequence->loading(); }));
}

// Whether it has to wait for files.
bool Scheduler::begin_load(Sequence& sequence) {
  if (!cache_ || sequence.embedding) return false;
  if (!sequence.load) sequence.load = cache_->load(sequence.tokens);
  return sequence.loading();
}

void Scheduler::wait_for_load() const {
  constexpr std::chrono::milliseconds most{5};
  for (const auto& sequence : waiting_)
    if (sequence->loading()) return (*sequence->load)->wait(most);
}

// False: it has to wait.
bool Scheduler::enter(Sequence& sequence) {
  const int32_t slots = sequence.speculate + 1;
  if (slots > slots_.free()) return false;
  CachedPrefix prefix;
  const bool cached = cache_ && !sequence.embedding;  // which needs the states of every token
  if (cached)
    prefix = cache_->find(sequence.tokens, sequence.load ? sequence.load->get() : nullptr);
  const int32_t pages = likely_pages(sequence) - static_cast<int32_t>(prefix.pages.size());
  if (!make_room(pages + likely_growth())) {
    pages_.give_back(prefix.pages);
    return false;
  }
  sequence.slots = SequenceSlots(slots_.take(slots));
  if (cached) start_behind(sequence, std::move(prefix), limits_.page_tokens);
  return true;
}

bool Scheduler::come_back(Sequence& sequence) {
  if (sequence.swapped_pages == 0) return enter(sequence);
  const int32_t slots = sequence.speculate + 1;
  if (slots > slots_.free()) return false;
  if (!make_room(std::max(likely_pages(sequence), sequence.swapped_pages) + likely_growth()))
    return false;
  sequence.slots = SequenceSlots(slots_.take(slots));
  for (; sequence.swapped_pages > 0; --sequence.swapped_pages)
    sequence.pages.push_back(pages_.take());
  swap_->restore(sequence);
  return true;
}

// The youngest pauses.
void Scheduler::make_way() {
  QNEXT_CHECK(running_.size() > 1, "the last sequence finds no page");
  const auto youngest = std::ranges::max_element(running_, {}, [](const auto& s) { return s->id; });
  std::unique_ptr<Sequence> sequence = std::move(*youngest);
  running_.erase(youngest);
  ++sequence->statistics.pauses;
  if (swap_ && has_begun(*sequence) && swap_->save(*sequence))
    sequence->swapped_pages = static_cast<int32_t>(sequence->pages.size());
  else
    start_anew(*sequence);
  release(*sequence);
  sequence->answer_state = {};
  sequence->answer_state_tokens = 0;  // its pages are gone; there will be another
  const auto place = std::ranges::upper_bound(paused_, sequence->id, {},
                                              [](const auto& other) { return other->id; });
  paused_.insert(place, std::move(sequence));
}

void Scheduler::release(Sequence& sequence) {
  pages_.give_back(sequence.pages);
  sequence.pages.clear();
  slots_.give_back(sequence.slots.all());
  sequence.slots = {};
}

std::unique_ptr<Sequence> Scheduler::remove(RequestId id) {
  const auto take_from = [id](auto& list) -> std::unique_ptr<Sequence> {
    const auto found = std::ranges::find(list, id, [](const auto& entry) { return entry->id; });
    if (found == list.end()) return nullptr;
    std::unique_ptr<Sequence> sequence = std::move(*found);
    list.erase(found);
    return sequence;
  };
  full_ = false;
  if (std::unique_ptr<Sequence> sequence = take_from(waiting_)) return sequence;
  std::unique_ptr<Sequence> sequence = take_from(running_);
  if (!sequence) sequence = take_from(paused_);
  if (!sequence) return nullptr;
  const auto answer = static_cast<double>(sequence->length() - sequence->prompt_tokens);
  if (!sequence->embedding) usual_answer_ += usual_weight * (answer - usual_answer_);
  release(*sequence);
  if (swap_) swap_->drop(*sequence);
  return sequence;
}

// --- pages -----------------------------------------------------------------------------------

// So many free ones, if need be by letting go of cached prefixes.
bool Scheduler::make_room(int32_t pages) {
  return pages_.free() >= pages || (cache_ && cache_->make_room(pages));
}

// What it will hold when its answer has become as long as usual, or a page longer than it is.
int32_t Scheduler::likely_pages(const Sequence& sequence) const {
  const int64_t usual = sequence.prompt_tokens + static_cast<int64_t>(usual_answer_);
  const int64_t next = sequence.length() + limits_.page_tokens;
  return pages_for(std::min(sequence.limit, std::max(usual, next)));
}

int32_t Scheduler::likely_growth() const {
  int32_t pages = 0;
  for (const auto& sequence : running_)
    pages += std::max(likely_pages(*sequence) - static_cast<int32_t>(sequence->pages.size()), 0);
  return pages;
}

int32_t Scheduler::missing_pages(const PlannedStep& step) const {
  const Sequence& sequence = *step.sequence;
  const int32_t needed = pages_for(sequence.computed + step.rows + step.propose);
  return std::max(needed - static_cast<int32_t>(sequence.pages.size()), 0);
}

// --- what they run ---------------------------------------------------------------------------

std::vector<PlannedStep> Scheduler::plan() {
  admit();
  std::vector<PlannedStep> steps;
  for (;;) {
    steps = plan_steps();
    int32_t missing = 0;
    for (const PlannedStep& step : steps) missing += missing_pages(step);
    if (make_room(missing)) break;
    make_way();
  }
  end_turn(steps);
  for (const PlannedStep& step : steps)
    for (int32_t missing = missing_pages(step); missing > 0; --missing)
      step.sequence->pages.push_back(pages_.take());
  return steps;
}

std::vector<PlannedStep> Scheduler::plan_steps() {
  std::vector<PlannedStep> steps;
  int32_t budget = limits_.prefill_chunk;
  std::span<const int32_t> snapshot_slots = limits_.snapshot_slots;
  for (const auto& sequence : running_) {
    if (!sequence->prefilling()) {
      steps.push_back(plan_decode(*sequence));
    } else if (const int32_t rows = prefill_rows(*sequence, budget, limits_.prefill_chunk)) {
      steps.push_back(plan_prefill(*sequence, rows, snapshot_slots));
      budget -= steps.back().rows;
    }
  }
  return steps;
}

// A prompt that has had its chunk and is not through goes behind the others.
void Scheduler::end_turn(const std::vector<PlannedStep>& steps) {
  const auto unfinished = std::ranges::find_if(
      steps.rbegin(), steps.rend(),
      [](const PlannedStep& step) { return step.sequence->prefilling() && !step.draw; });
  if (unfinished == steps.rend()) return;
  const auto turn =
      std::ranges::find(running_, unfinished->sequence, &std::unique_ptr<Sequence>::get);
  std::rotate(turn, turn + 1, running_.end());
}

// --- the lists -------------------------------------------------------------------------------

std::vector<Sequence*> Scheduler::running_sequences() const {
  std::vector<Sequence*> sequences;
  for (const auto& sequence : running_) sequences.push_back(sequence.get());
  return sequences;
}

Sequence* Scheduler::find_if(const std::function<bool(const Sequence&)>& wanted) {
  for (const auto& sequence : running_)
    if (wanted(*sequence)) return sequence.get();
  for (const auto& sequence : paused_)
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
