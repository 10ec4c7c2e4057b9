// Generation: many requests through one backend, one ragged batch at a time.
//
// The engine owns the numbers of pages and slots, the queue and the sequences; the backend (which
// must outlive it, and must be driven by nobody else meanwhile) owns the memory behind the
// numbers; the tokenizer, where there is one, must outlive it too. Everything happens inside the
// calls below, on the thread that makes them; the engine is not for two threads at a time.
//
//   Engine engine(backend, &tokenizer, {.max_context = 4096});
//   Collector answer;
//   engine.submit({.prompt = tokenizer.encode("ROMEO:"), .max_tokens = 100}, answer);
//   engine.run();
//
// A request's answer depends on the request alone: not on the others in the batch, on how its
// prompt was cut, on what the cache knew of it, on speculation, or on whether it had to pause (but
// for EngineOptions::swap_bytes).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backend/step.h"
#include "engine/page_allocator.h"
#include "engine/prefix_cache.h"
#include "engine/prefix_store.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/slot_allocator.h"
#include "engine/speculation.h"

namespace qnext {
class Tokenizer;
}

namespace qnext::engine {

struct EngineOptions {
  int64_t max_context = 0;      // prompt and answer together; 0: what the model was made for
  int32_t max_sequences = 1;    // in one batch; more wait
  int32_t prefill_chunk = 0;    // prompt tokens in one step; 0: Capabilities::prefill_chunk
  int32_t max_speculation = 0;  // largest GenerationRequest::speculate
  // Drafts as they pay; false: always as many as the request allows.
  bool adapt_speculation = true;
  // KV pages; 0: enough for max_sequences full contexts. With fewer, sequences wait, and pause
  // where answers grow longer than was likely; the context is never longer than all of them.
  int32_t pages = 0;
  // State slots, of which a sequence holds speculate + 1; 0: enough for max_sequences.
  int32_t slots = 0;
  // Tokens of an answer for which a request needs room to be let in, until there is experience.
  double likely_answer = 256;
  // Host memory for what paused sequences held (engine/swap_space.h). What does not fit is computed
  // again: later, and on a backend whose answers are not like prompts with other roundings.
  size_t swap_bytes = size_t{1} << 32;
  // Bytes of state and KV pages that may be kept of ended requests, for later ones that begin alike
  // (engine/prefix_cache.h); 0: nothing is kept.
  size_t cache_bytes = 0;
  // A folder for what leaves the cache (engine/prefix_store.h), and for all of it when the engine
  // ends; empty: none. The fingerprint stands for the model and for all that the bytes of pages and
  // states depend on besides; without a folder nobody asks for it.
  std::string cache_folder = {};
  size_t cache_folder_bytes = size_t{16} << 30;
  uint64_t cache_fingerprint = 0;
  // Tokens that end an answer; absent: the config's eos_token_ids. The caller has read
  // generation_config.json, which may name more.
  std::optional<std::vector<int32_t>> stop_tokens = std::nullopt;
  // Seconds since some moment, for timing steps; null: the system's steady clock.
  std::function<double()> clock = nullptr;
};

// The options with nothing left open, and the memory they need (Backend::reservation_bytes tells
// the bytes). Throws Error on options that cannot work, naming the one to change.
struct EnginePlan {
  EngineOptions options;
  backend::Reservation reservation;
};
EnginePlan plan_engine(const Config& config, const backend::Capabilities& capabilities,
                       const EngineOptions& options);

struct EngineLoad {
  int32_t waiting = 0;
  int32_t paused = 0;  // made way for older ones, and will come back
  int32_t running = 0;
  int32_t free_pages = 0;
  int32_t free_slots = 0;
  int32_t cached_pages = 0;  // held by the cache of prefixes; some may be in use too
  size_t cached_bytes = 0;
  size_t swapped_bytes = 0;  // of paused ones, in host memory
};

class Engine {
 public:
  // Reserves the backend's memory. `tokenizer` may be null: then no text comes, only tokens.
  Engine(backend::Backend& backend, const Tokenizer* tokenizer, const EngineOptions& options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Throws Error where a request could never run: an empty prompt or one that fills the context, a
  // token that does not exist, sampling parameters out of range, speculation that the model or the
  // options lack. Reads nothing that changes: any thread may call it, at any time.
  void check(const GenerationRequest& request) const;
  // Queues a request. Throws Error where check() does, and for stop strings that cannot be watched
  // for.
  RequestId submit(GenerationRequest request, Listener& listener);
  // Ends a request and frees what it holds; on_finish comes from inside this call, or, where a
  // listener makes it, before the step returns. Nothing happens if the request has ended already.
  void cancel(RequestId id);

  // Runs one batch and delivers its events; where there is none but files are being read for one,
  // it waits for these a moment. False: there was nothing to do.
  bool step();
  void run() {
    while (step()) {
    }
  }

  // Hands one of the cached prefixes that are not on disk to the writer: for when there is nothing
  // to do. False: there is none, no folder, or the writer is behind.
  bool save_some();

  // As planned: every 0 and absent value filled in.
  const EngineOptions& options() const { return plan_.options; }
  // The values of an embedding.
  int64_t hidden_size() const { return backend_.config().hidden_size; }
  EngineLoad load() const;

 private:
  class Busy;
  double now() const;
  void deliver(const PlannedStep& planned, backend::SequenceResult& result);
  void finish(Sequence& sequence, FinishReason reason, std::string error = {});
  void finish_cancelled();

  // With the cache of prefixes: engine_cache.cpp.
  void make_cache();
  void restore_states(const std::vector<PlannedStep>& plan);
  void keep_prompt(const Sequence& sequence, int64_t first, int32_t rows);
  void save_answer(Sequence& sequence, int64_t first);
  void keep_answer(Sequence& sequence);

  backend::Backend& backend_;
  const Tokenizer* tokenizer_;
  EnginePlan plan_;
  PageAllocator pages_;
  SlotAllocator slots_;
  std::optional<PrefixStore> store_;
  std::optional<PrefixCache> cache_;
  std::optional<SwapSpace> swap_;
  Scheduler scheduler_;
  Speculation speculation_;
  RequestId last_id_ = 0;
  bool busy_ = false;  // events are being delivered
};

}  // namespace qnext::engine
