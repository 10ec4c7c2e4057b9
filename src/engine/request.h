// What a caller asks of the engine, and what it hears back.
//
// A request is a value: the engine takes it over at submit(). Its Listener stays the caller's and
// must live until on_finish, which is called exactly once and last for every accepted request,
// whatever ends it. Token ids are those of the model; text comes only from an engine that has a
// tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/constraint.h"
#include "ops/sampling/sampling.h"

namespace qnext::engine {

using RequestId = uint64_t;

struct GenerationRequest {
  std::vector<int32_t> prompt = {};  // at least one token
  ops::SamplingParameters sampling = {};
  std::optional<int64_t> max_tokens =
      std::nullopt;                       // of the answer; absent: until the context is full
  std::vector<int32_t> stop_tokens = {};  // besides the engine's own (EngineOptions::stop_tokens)
  bool ignore_eos = false;                // the engine's own stop tokens do not stop this answer
  std::vector<std::string> stop_strings = {};  // need a tokenizer; special tokens give no text
  // At most so many drafts of the MTP head for each step, fewer where they do not pay (see
  // engine/speculation.h); 0: off. The answer is the same, only sooner.
  int32_t speculate = 0;
  // Places in the prompt, counted in tokens and ascending, where others are likely to part from it:
  // where the instructions end that all conversations share, where a message ends. The cache of
  // prefixes keeps states there.
  std::vector<int64_t> boundaries = {};
  // Whose request it is: users take turns where requests have to wait. Empty counts as one user.
  std::string user = {};
  // For measurements: SequenceStep::force_accepted.
  int32_t force_accepted = -1;
  // What the answer may say; null: anything. Not together with force_accepted.
  std::shared_ptr<const Constraint> constraint = nullptr;
  // Not an answer but the prompt's embedding (Finish::embedding). Nothing is drawn, and all of the
  // prompt runs, whatever the cache knows; what the fields above say of an answer means nothing.
  bool embed = false;
};

enum class FinishReason {
  stop_token,   // the last token of the answer is a stop token
  stop_string,  // the text met a stop string; neither it nor what follows was emitted
  length,       // max_tokens reached
  context,      // the context is full
  cancelled,
  error,     // Finish::error says what
  embedded,  // Finish::embedding is there
};
constexpr size_t finish_reasons = 7;
// "stop_token", "stop_string", ...
std::string_view finish_reason_name(FinishReason reason);

struct GenerationCounts {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;     // of the prompt, those that an earlier request had computed
  int64_t generated_tokens = 0;  // the stop token and the tokens of a stop string included
  int64_t prefill_steps = 0;     // steps that ran the prompt; the last draws the first token
  int64_t decode_steps = 0;      // steps after those
  int64_t drafted_tokens = 0;    // drafts that were verified
  int64_t accepted_tokens = 0;   // drafts that became part of the answer
  int64_t pauses = 0;            // how often it made way for older sequences

  // Tokens of the answer for each decode step: 1 without speculation; 0 where there was none.
  double tokens_per_step() const {
    return decode_steps == 0
               ? 0
               : static_cast<double>(generated_tokens - 1) / static_cast<double>(decode_steps);
  }
};

struct Finish {
  FinishReason reason = FinishReason::error;
  std::string stop_string = {};  // the one that was met, with FinishReason::stop_string
  std::string error = {};        // one line, with FinishReason::error
  GenerationCounts counts = {};
  // With FinishReason::embedded: the mean, over the prompt's tokens, of the hidden states after the
  // final norm, [hidden_size].
  std::vector<float> embedding = {};
};

// Calls come from within Engine::step() or Engine::cancel(), on the thread that called it.
//
// A call may submit other requests and cancel any, its own included. A call that throws
// (a std::exception) ends its own request with FinishReason::error and that message (on_finish
// still comes); what on_finish throws is dropped. Neither touches another request.
class Listener {
 public:
  virtual ~Listener() = default;

  // Every token of the answer in order, the stop token included, before the text that it makes
  // certain.
  virtual void on_token(RequestId, const ops::SampledToken&) {}
  // The next piece of the answer, never empty: whole UTF-8 characters that can belong to no stop
  // string. The pieces together are the answer. A stop token gives no text.
  virtual void on_text(RequestId, std::string_view) {}
  virtual void on_finish(RequestId, const Finish&) {}
};

}  // namespace qnext::engine
