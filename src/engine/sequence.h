// A request under way: its tokens, the memory it holds, and how far it has come.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/answer.h"
#include "engine/prefix_cache.h"
#include "engine/prompt_mean.h"
#include "engine/request.h"
#include "engine/slot_allocator.h"
#include "engine/speculation.h"

namespace qnext::engine {

struct Sequence {
  Sequence(RequestId number, Answer empty) : id(number), answer(std::move(empty)) {}

  RequestId id;
  std::string user;
  ops::SamplingParameters sampling;
  int32_t speculate = 0;  // drafts in one step, at most
  DraftRecord speculation;
  int32_t force_accepted = -1;
  std::unique_ptr<ConstraintProgress> constraint;  // or null
  // Most tokens that prompt and answer may have together: the context, or fewer by max_tokens.
  int64_t limit = 0;  // the prompt's tokens where no answer is wanted
  FinishReason reason_at_limit = FinishReason::length;

  std::vector<int32_t> tokens;  // the prompt, then the answer
  int64_t prompt_tokens = 0;
  // Tokens that run as a prompt: the prompt, or, where a sequence had to make way and nothing was
  // saved of it, all that it had.
  int64_t prefill_tokens = 0;
  int64_t computed = 0;         // tokens whose rows have run; all but the last once it decodes
  std::vector<int32_t> drafts;  // proposals that continue `tokens`
  ops::TokenCounts counts;      // of `tokens`, for the penalties
  Answer answer;
  std::optional<PromptMean> embedding;  // in place of an answer
  GenerationCounts statistics;
  bool cancelled = false;

  // Held while it runs; see PageAllocator and SlotAllocator.
  std::vector<int32_t> pages;
  SequenceSlots slots;
  // While it has made way for others: bytes of its pages and its state, empty where none were
  // saved; and how many pages it had.
  StateBytes swapped;
  int32_t swapped_pages = 0;

  // With a cache of prefixes: where the caller expects other prompts to part from this one; the
  // state to go on from, until the first step has it; where in the prompt to take snapshots, in
  // order; and the state at the newest page boundary of the answer,
  // after `answer_state_tokens` tokens.
  std::vector<int64_t> boundaries;
  // Files with more of the prompt than memory has, once somebody has looked for them.
  std::optional<std::shared_ptr<PrefixStore::Load>> load;
  std::shared_ptr<const StateBytes> restored;
  std::vector<int64_t> snapshots;
  StateBytes answer_state;
  int64_t answer_state_tokens = 0;

  bool loading() const { return load && *load && !(*load)->done(); }
  bool prefilling() const { return computed < prefill_tokens; }
  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
};

}  // namespace qnext::engine
