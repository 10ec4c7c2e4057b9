// What an engine's options come to on one model and backend.
#include <algorithm>
#include <limits>

#include "base/error.h"
#include "engine/engine.h"

namespace qnext::engine {
namespace {

int64_t plan_context(const Config& config, int64_t wanted) {
  const int64_t most = config.context_length();
  if (wanted == 0) return most;
  if (wanted < 2)
    fail("a context of {} tokens holds no prompt and answer: ask for 2 or more", wanted);
  if (wanted > most)
    fail("a context of {} tokens was asked for, but the model was made for {}: ask for fewer",
         wanted, most);
  return wanted;
}

void check_counts(const EngineOptions& options, const backend::Capabilities& capabilities) {
  if (options.max_sequences < 1)
    fail("max_sequences is {}: one sequence at least must run", options.max_sequences);
  if (options.prefill_chunk < 0)
    fail("prefill_chunk is {}: use 0 for what suits the device", options.prefill_chunk);
  if (options.max_speculation < 0)
    fail("max_speculation is {}: use 0 for none", options.max_speculation);
  if (options.slots < 0) fail("slots is {}: use 0 for enough", options.slots);
  if (options.pages < 0) fail("pages is {}: use 0 for as many as fit the context", options.pages);
  if (options.max_speculation > 0 && !capabilities.has_mtp)
    fail("the model has no MTP head to speculate with: leave speculation off");
}

int32_t fits_int32(int64_t count, const char* what) {
  if (count > std::numeric_limits<int32_t>::max())
    fail("the options need {} {}: choose a smaller context or fewer sequences", count, what);
  return static_cast<int32_t>(count);
}

}  // namespace

EnginePlan plan_engine(const Config& config, const backend::Capabilities& capabilities,
                       const EngineOptions& wanted) {
  check_counts(wanted, capabilities);
  EnginePlan plan{.options = wanted, .reservation = {}};
  EngineOptions& options = plan.options;
  options.max_context = plan_context(config, wanted.max_context);
  if (options.prefill_chunk == 0) options.prefill_chunk = capabilities.prefill_chunk;

  const int64_t page_tokens = capabilities.page_tokens;
  const int64_t sequences = options.max_sequences;
  if (options.pages == 0) {
    const int64_t pages = (options.max_context + page_tokens - 1) / page_tokens;
    options.pages = fits_int32(pages * sequences, "KV pages");
  }
  options.max_context = std::min(options.max_context, options.pages * page_tokens);

  if (!options.stop_tokens) {
    options.stop_tokens.emplace();
    for (const int64_t token : config.eos_token_ids)
      options.stop_tokens->push_back(static_cast<int32_t>(token));
  }

  const int64_t verify_rows = int64_t{options.max_speculation} + 1;
  if (options.slots == 0) options.slots = fits_int32(sequences * verify_rows, "state slots");
  if (options.slots < verify_rows)
    fail("{} state slots are too few: one sequence with {} drafts a step holds {}", options.slots,
         options.max_speculation, verify_rows);

  // Two prompts that share a batch seldom both want a state from the middle of their chunk.
  constexpr int32_t snapshot_slots = 2;
  const int32_t slots = options.slots + (options.cache_bytes > 0 ? snapshot_slots : 0);

  // The largest batch: one sequence prefills a whole chunk, all others verify all their drafts. A
  // chunk may hold several prompts, but no more than there is context for.
  const int64_t chunk = std::min(int64_t{options.prefill_chunk}, sequences * options.max_context);
  const int64_t rows = std::max(chunk, verify_rows) + (sequences - 1) * verify_rows;
  plan.reservation = {
      .pages = options.pages, .slots = slots, .rows = fits_int32(rows, "rows in a batch")};
  return plan;
}

}  // namespace qnext::engine
