// What the engine does for the cache of prefixes: states out of their slots and back.
#include <algorithm>
#include <span>
#include <utility>

#include "engine/engine.h"
#include "engine/sequence.h"

namespace qnext::engine {
namespace {

void export_to(const backend::Backend& backend, int32_t slot, StateBytes& state) {
  state.resize(backend.capabilities().slot_bytes);
  backend.export_state(slot, state);
}

// Keeps the state after the first `count` tokens.
void keep(PrefixCache& cache, const Sequence& sequence, int64_t count, StateBytes state) {
  const auto tokens = std::span(sequence.tokens).first(static_cast<size_t>(count));
  const int32_t next = sequence.tokens[static_cast<size_t>(count)];
  cache.keep(tokens, sequence.pages, std::move(state),
             sequence.speculation.head_in_step ? next : PrefixCache::no_token);
}

}  // namespace

void Engine::make_cache() {
  const backend::Capabilities& capabilities = backend_.capabilities();
  std::optional<PrefixCache::Disk> disk;
  if (!options().cache_folder.empty()) {
    store_.emplace(PrefixStore::Limits{.folder = options().cache_folder,
                                       .bytes = options().cache_folder_bytes,
                                       .fingerprint = options().cache_fingerprint,
                                       .page_tokens = capabilities.page_tokens,
                                       .page_bytes = capabilities.page_bytes,
                                       .state_bytes = capabilities.slot_bytes});
    disk.emplace(PrefixCache::Disk{backend_, *store_});
  }
  cache_.emplace(PrefixCache::Limits{.page_tokens = capabilities.page_tokens,
                                     .page_bytes = capabilities.page_bytes,
                                     .bytes = options().cache_bytes},
                 pages_, disk);
  scheduler_.use_cache(*cache_);
}

bool Engine::save_some() {
  return cache_ && cache_->save_some();
}

// Sequences that begin behind a cached prefix get its state before their first step.
void Engine::restore_states(const std::vector<PlannedStep>& plan) {
  for (const PlannedStep& planned : plan) {
    Sequence& sequence = *planned.sequence;
    if (!sequence.restored) continue;
    backend_.import_state(sequence.slots.restore(), *sequence.restored);
    sequence.restored.reset();
  }
}

// A step of so many rows of a prompt has run, from position `first` on: its snapshots are there.
void Engine::keep_prompt(const Sequence& sequence, int64_t first, int32_t rows) {
  for (const int64_t wanted : sequence.snapshots) {
    const int64_t row = wanted - first - 1;
    if (row < 0 || row >= rows) continue;
    const auto tokens = std::span(sequence.tokens).first(static_cast<size_t>(wanted));
    if (!cache_->wants(tokens, backend_.capabilities().slot_bytes)) continue;
    StateBytes state;
    export_to(backend_, sequence.slots.written(static_cast<int32_t>(row)), state);
    keep(*cache_, sequence, wanted, std::move(state));
  }
}

// A step from position `first` on has run. If the answer has come to the end of a page, its state
// there is set aside: later there is no way back to it.
void Engine::save_answer(Sequence& sequence, int64_t first) {
  if (!cache_ || !backend_.capabilities().answers_like_prompts) return;
  if (first < sequence.prefill_tokens) return;
  const int64_t page_tokens = backend_.capabilities().page_tokens;
  // A stop may have dropped tokens that the step computed.
  const int64_t known = std::min(sequence.computed, sequence.length() - 1);
  const int64_t boundary = known / page_tokens * page_tokens;
  if (boundary <= first) return;
  export_to(backend_, sequence.slots.written(static_cast<int32_t>(boundary - first - 1)),
            sequence.answer_state);
  sequence.answer_state_tokens = boundary;
}

// The sequence has ended: the next turn of a conversation will begin with its answer.
void Engine::keep_answer(Sequence& sequence) {
  if (sequence.answer_state_tokens == 0) return;
  keep(*cache_, sequence, sequence.answer_state_tokens, std::move(sequence.answer_state));
}

}  // namespace qnext::engine
