#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"

namespace qnext::engine {
namespace {

void check_request(const GenerationRequest& request, const EngineOptions& options,
                   const Config& config) {
  const int64_t prompt = std::ssize(request.prompt);
  if (prompt == 0) fail("the prompt is empty: give at least one token");
  if (request.embed ? prompt > options.max_context : prompt >= options.max_context) {
    const bool largest = options.max_context >= config.context_length();
    fail("the prompt has {} tokens, but the context of {} leaves no room for {}: {}", prompt,
         options.max_context, request.embed ? "all of it" : "an answer",
         largest ? "shorten the prompt, the model was made for no more"
                 : "shorten the prompt or raise --context");
  }
  for (const int32_t token : request.prompt)
    if (token < 0 || token >= config.vocabulary_size)
      fail("the prompt holds token {}, but the model's vocabulary has {}: is this its tokenizer?",
           token, config.vocabulary_size);
  if (!std::ranges::is_sorted(request.boundaries) ||
      (!request.boundaries.empty() &&
       (request.boundaries.front() < 0 || request.boundaries.back() > prompt)))
    fail("the boundaries of messages must ascend within the prompt's {} tokens", prompt);
  if (request.max_tokens && *request.max_tokens < 1)
    fail("max_tokens is {}: ask for at least one token", *request.max_tokens);
  if (request.speculate < 0 || request.speculate > options.max_speculation)
    fail("{} drafts a step were asked for, but this engine was set up for 0 to {}",
         request.speculate, options.max_speculation);
  if (request.constraint && request.force_accepted >= 0)
    fail("drafts cannot be forced on an answer that is constrained");
  ops::validate(request.sampling, config.vocabulary_size);
}

// What lies behind the spans of one step.
struct StepMemory {
  std::vector<int32_t> tokens;  // of a step that verifies drafts
  std::vector<std::shared_ptr<const TokenMask>> masks;
  std::vector<const uint32_t*> allowed;  // of `masks`
  std::optional<std::string> error;      // of the constraint
};

void ask_constraint(const PlannedStep& planned, StepMemory& memory) {
  Sequence& sequence = *planned.sequence;
  if (!planned.draw || !sequence.constraint) return;
  try {
    memory.masks = sequence.constraint->masks(
        std::span(sequence.drafts).first(static_cast<size_t>(planned.drafts)));
    for (const auto& mask : memory.masks) memory.allowed.push_back(mask ? mask->data() : nullptr);
  } catch (const std::exception& problem) {
    memory.error = problem.what();
  }
}

// What is asked of the backend for one sequence. `memory` must live as long as the result, as must
// the sequence.
backend::SequenceStep sequence_step(const PlannedStep& planned, StepMemory& memory) {
  Sequence& sequence = *planned.sequence;
  const auto next = static_cast<size_t>(sequence.computed + planned.rows);
  backend::SequenceStep step;
  step.tokens = std::span(sequence.tokens)
                    .subspan(static_cast<size_t>(sequence.computed),
                             static_cast<size_t>(planned.rows - planned.drafts));
  if (planned.drafts > 0) {
    memory.tokens.assign(step.tokens.begin(), step.tokens.end());
    memory.tokens.insert(memory.tokens.end(), sequence.drafts.begin(), sequence.drafts.end());
    step.tokens = memory.tokens;
  }
  step.first_position = sequence.computed;
  step.pages = sequence.pages;
  step.state_in = sequence.slots.input();
  step.state_out = sequence.slots.outputs(planned.rows, planned.drafts);
  for (const PlannedStep::KeptRow& kept : planned.kept_rows)
    sequence.slots.also_keep(kept.row, kept.slot);
  step.drafts = planned.drafts;
  step.force_accepted = sequence.force_accepted;
  step.draw = planned.draw;
  if (planned.draw) {
    step.sampling = &sequence.sampling;
    step.counts = &sequence.counts;
    step.allowed = memory.allowed;
  }
  step.answer = !sequence.prefilling();
  step.mtp = sequence.speculation.head_in_step;
  if (step.mtp && !planned.draw) step.next_token = sequence.tokens[next];
  step.propose = planned.propose;
  if (sequence.embedding) step.hidden = sequence.embedding->begin(planned.rows);
  return step;
}

// One result for each step. A batch that cannot run as a whole fails each of its sequences.
std::vector<backend::SequenceResult> run_batch(backend::Backend& backend,
                                               const std::vector<PlannedStep>& plan) {
  std::vector<StepMemory> memory(plan.size());
  backend::Batch batch;
  for (size_t i = 0; i < plan.size(); ++i) {
    ask_constraint(plan[i], memory[i]);
    batch.sequences.push_back(sequence_step(plan[i], memory[i]));
  }
  try {
    std::vector<backend::SequenceResult> results = backend.step(batch);
    QNEXT_CHECK(results.size() == plan.size());
    for (size_t i = 0; i < plan.size(); ++i)
      if (memory[i].error) results[i].error = memory[i].error;
    return results;
  } catch (const std::exception& problem) {
    backend::SequenceResult failed;
    failed.error = problem.what();
    return std::vector<backend::SequenceResult>(plan.size(), failed);
  }
}

// Moves the sequence on by what the step computed, and its answer by what it drew. Set: the answer
// has ended; tokens drawn beyond its end are dropped.
std::optional<FinishReason> advance(const PlannedStep& planned, backend::SequenceResult& result) {
  Sequence& sequence = *planned.sequence;
  GenerationCounts& counts = sequence.statistics;
  const int32_t accepted = result.accepted_drafts();
  QNEXT_CHECK(result.tokens.empty() != planned.draw && accepted <= planned.drafts &&
              std::ssize(result.proposed) <= planned.propose);
  const bool answers = planned.draw && sequence.length() > sequence.prompt_tokens;
  ++(answers ? counts.decode_steps : counts.prefill_steps);
  counts.drafted_tokens += planned.drafts;
  sequence.computed += planned.rows - planned.drafts + accepted;
  sequence.slots.advance(planned.drafts, accepted);
  sequence.drafts = std::move(result.proposed);

  for (int32_t i = 0; const ops::SampledToken& token : result.tokens) {
    sequence.tokens.push_back(token.token);
    sequence.counts.add(token.token, true);
    ++counts.generated_tokens;
    if (i++ < accepted) ++counts.accepted_tokens;
    if (sequence.constraint) sequence.constraint->accept(token.token);
    std::optional<FinishReason> reason = sequence.answer.add(token);
    if (sequence.cancelled) return FinishReason::cancelled;
    if (reason) return reason;
    if (sequence.length() == sequence.limit) return sequence.reason_at_limit;
  }
  return std::nullopt;
}

// Slots that the reservation has beyond those of sequences.
std::vector<int32_t> snapshot_slots(const EnginePlan& plan) {
  std::vector<int32_t> slots;
  for (int32_t slot = plan.options.slots; slot < plan.reservation.slots; ++slot)
    slots.push_back(slot);
  return slots;
}

}  // namespace

// While it lives, cancel() only marks: sequences of the batch stay where they are.
class Engine::Busy {
 public:
  explicit Busy(bool& busy) : busy_(busy) {
    QNEXT_CHECK(!busy_, "Engine::step was called from a listener");
    busy_ = true;
  }
  ~Busy() { busy_ = false; }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  bool& busy_;
};

Engine::Engine(backend::Backend& backend, const Tokenizer* tokenizer, const EngineOptions& options)
    : backend_(backend),
      tokenizer_(tokenizer),
      plan_(plan_engine(backend.config(), backend.capabilities(), options)),
      pages_(plan_.reservation.pages),
      slots_(plan_.options.slots),
      scheduler_({.max_sequences = plan_.options.max_sequences,
                  .prefill_chunk = plan_.options.prefill_chunk,
                  .page_tokens = backend.capabilities().page_tokens,
                  .likely_answer = plan_.options.likely_answer,
                  .snapshot_slots = snapshot_slots(plan_)},
                 pages_, slots_),
      speculation_(plan_.options.adapt_speculation, backend.config().layers.size()) {
  backend_.reserve(plan_.reservation);
  swap_.emplace(backend_, plan_.options.swap_bytes);
  scheduler_.use_swap(*swap_);
  if (plan_.options.cache_bytes > 0) make_cache();
}

Engine::~Engine() = default;

double Engine::now() const {
  if (options().clock) return options().clock();
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

void Engine::check(const GenerationRequest& request) const {
  check_request(request, options(), backend_.config());
}

RequestId Engine::submit(GenerationRequest request, Listener& listener) {
  check(request);
  const RequestId id = last_id_ + 1;
  std::vector<int32_t> stop_tokens = std::move(request.stop_tokens);
  if (!request.ignore_eos)
    stop_tokens.insert(stop_tokens.end(), options().stop_tokens->begin(),
                       options().stop_tokens->end());
  auto sequence = std::make_unique<Sequence>(
      id, Answer(id, listener, tokenizer_, std::move(stop_tokens), request.stop_strings));

  const int64_t prompt = std::ssize(request.prompt);
  const int64_t room = options().max_context - prompt;
  const int64_t most = request.max_tokens.value_or(room);
  sequence->sampling = std::move(request.sampling);
  sequence->speculate = request.embed ? 0 : request.speculate;
  sequence->force_accepted = request.force_accepted;
  if (request.constraint) sequence->constraint = request.constraint->begin();
  sequence->limit = request.embed ? prompt : prompt + std::min(most, room);
  if (request.embed) sequence->embedding.emplace(backend_.config().hidden_size);
  sequence->reason_at_limit =
      request.max_tokens && most <= room ? FinishReason::length : FinishReason::context;
  sequence->tokens = std::move(request.prompt);
  sequence->prompt_tokens = sequence->prefill_tokens = prompt;
  sequence->boundaries = std::move(request.boundaries);
  sequence->user = std::move(request.user);
  sequence->statistics.prompt_tokens = prompt;
  for (const int32_t token : sequence->tokens) sequence->counts.add(token, false);

  speculation_.join(*sequence);
  scheduler_.enqueue(std::move(sequence));
  return last_id_ = id;
}

void Engine::cancel(RequestId id) {
  Sequence* sequence = scheduler_.find(id);
  if (!sequence) return;
  sequence->cancelled = true;
  if (busy_) return;
  const Busy busy(busy_);
  finish_cancelled();
}

bool Engine::step() {
  const Busy busy(busy_);
  speculation_.choose(scheduler_.running_sequences());
  const std::vector<PlannedStep> plan = scheduler_.plan();
  if (plan.empty()) {
    if (scheduler_.waiting() == 0) return false;
    scheduler_.wait_for_load();
    return true;
  }
  restore_states(plan);
  const double start = now();
  std::vector<backend::SequenceResult> results = run_batch(backend_, plan);
  const double seconds = now() - start;
  if (std::ranges::none_of(results, [](const auto& result) { return result.error.has_value(); }))
    speculation_.timed(plan, seconds);
  for (size_t i = 0; i < plan.size(); ++i) deliver(plan[i], results[i]);
  finish_cancelled();
  return true;
}

void Engine::deliver(const PlannedStep& planned, backend::SequenceResult& result) {
  Sequence& sequence = *planned.sequence;
  if (sequence.cancelled) return;  // by a listener, since the batch was planned
  if (result.error) return finish(sequence, FinishReason::error, *result.error);
  try {
    const int64_t first = sequence.computed;
    const bool prompt = sequence.prefilling();
    if (!prompt)
      speculation_.judged(sequence.speculation, planned.drafts, result.accepted_drafts());
    std::optional<FinishReason> reason = advance(planned, result);
    if (prompt) keep_prompt(sequence, first, planned.rows);
    if (sequence.embedding) {
      sequence.embedding->add();
      if (!sequence.prefilling()) finish(sequence, FinishReason::embedded);
      return;
    }
    save_answer(sequence, first);
    if (!reason) return;
    if (*reason != FinishReason::cancelled) sequence.answer.flush();
    finish(sequence, *reason);
  } catch (const std::exception& problem) {
    finish(sequence, FinishReason::error, problem.what());
  }
}

void Engine::finish(Sequence& sequence, FinishReason reason, std::string error) {
  if (reason != FinishReason::error) keep_answer(sequence);
  std::vector<float> embedding;
  if (reason == FinishReason::embedded) embedding = sequence.embedding->mean();
  const std::unique_ptr<Sequence> ended = scheduler_.remove(sequence.id);
  const Finish finish{.reason = reason,
                      .stop_string = ended->answer.stop_string(),
                      .error = std::move(error),
                      .counts = ended->statistics,
                      .embedding = std::move(embedding)};
  try {
    ended->answer.listener().on_finish(ended->id, finish);
  } catch (const std::exception&) {
    // The request is over and its caller knows: there is nobody left to tell.
  }
}

void Engine::finish_cancelled() {
  while (Sequence* sequence = scheduler_.find_cancelled())
    finish(*sequence, FinishReason::cancelled);
}

EngineLoad Engine::load() const {
  return {.waiting = scheduler_.waiting(),
          .paused = scheduler_.paused(),
          .running = scheduler_.running(),
          .free_pages = pages_.free(),
          .free_slots = slots_.free(),
          .cached_pages = cache_ ? cache_->pages() : 0,
          .cached_bytes = cache_ ? cache_->bytes() : 0,
          .swapped_bytes = swap_->bytes()};
}

}  // namespace qnext::engine
