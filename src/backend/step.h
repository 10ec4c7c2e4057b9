// The seam between the engine and a backend: one whole-model step over a ragged batch.
//
// The engine decides what runs (which tokens, which pages and slots, how many drafts); a backend
// decides how. Neither streams nor threads nor launches appear here. A Backend owns the weights on
// its device, the KV pages and the state slots; the engine owns their numbers. A Backend is driven
// by one thread at a time.
//
// Pages. The KV cache of all attention layers (the MTP layer's too) is cut into pages of
// page_tokens positions; page p of the table covers positions [p * page_tokens, ...). Writing a
// position again overwrites it: attention caches roll back by themselves.
// Slots. The recurrent state of all Gated DeltaNet layers (convolution inputs and S) lives in
// slots. A step reads one slot and may write one after every row, so that rejecting drafts is the
// choice of another slot, not a recomputation.
//
// Same bits, whoever else is in the batch, and however a prompt is cut into steps, as long as the
// cuts are at multiples of prompt_cut. A backend whose bits depend on no cut at all does better.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "ops/sampling/sampling.h"

namespace qnext::backend {

constexpr int32_t no_slot = -1;

// Backends may run a prompt in blocks of so many positions, counted from its start (the chunked
// form of the delta rule): a prompt that is cut only there meets the same blocks.
constexpr int64_t prompt_cut = 64;

// Consecutive rows of one sequence. All spans must outlive the step.
struct SequenceStep {
  std::span<const int32_t> tokens;  // [rows], rows >= 1
  int64_t first_position = 0;       // position of tokens[0]
  // Covers first_position + rows + propose positions.
  std::span<const int32_t> pages;

  int32_t state_in = no_slot;  // no_slot: the start of a sequence
  // [rows]: the slot that receives the state after that row; no_slot: not kept. A slot is named
  // once in a batch; only the last entry may equal state_in.
  std::span<const int32_t> state_out;

  // The last `drafts` rows hold proposed tokens. The row before each draft draws a token; a draft
  // is accepted while it equals the drawn one, and the first drawn token that differs, or the one
  // after the last draft, ends the step's answer.
  int32_t drafts = 0;
  // For measurements: the first so many drafts pass for accepted and those after them for
  // rejected, whatever is drawn. Below zero: drafts are judged.
  int32_t force_accepted = -1;
  // Draw a token after the last row (always with drafts). False for all but the last chunk of a
  // prompt.
  bool draw = false;
  const ops::SamplingParameters* sampling = nullptr;  // required with draw
  const ops::TokenCounts* counts = nullptr;           // tokens before this step's first draw
  // With draw: which tokens each drawing row may draw, [drafts + 1] masks as ops::sample takes
  // them; a null mask, or none at all: any. A draft that its mask forbids is rejected.
  std::span<const uint32_t* const> allowed = {};

  // The rows continue an answer (its newest token, then drafts), as opposed to rows of a prompt,
  // the chunk that draws the first token included. A backend may sum the two kinds in different
  // orders; within each kind the bits are the same, whoever else is in the batch.
  bool answer = false;

  // Keep the MTP head's cache in step with the sequence. Wanted on every step of a sequence from
  // its start if it is to propose drafts later.
  bool mtp = false;
  // With mtp and without draw: the token that follows the last row.
  int32_t next_token = 0;
  // With mtp and draw: propose so many drafts for the next step (greedy choices of the MTP head).
  int32_t propose = 0;

  // Where to put the logits of all rows, [rows, vocabulary_size]; null: they stay inside.
  float* logits = nullptr;
  // The same for the outputs of the final norm, [rows, hidden_size].
  float* hidden = nullptr;
};

struct Batch {
  std::vector<SequenceStep> sequences;
};

struct SequenceResult {
  // Empty without draw; else the accepted drafts and one token more.
  std::vector<ops::SampledToken> tokens;
  // Proposals that continue `tokens`, at most SequenceStep::propose.
  std::vector<int32_t> proposed;
  // Set if this sequence failed (logits that are not numbers, say); the others are unharmed.
  std::optional<std::string> error;

  int32_t accepted_drafts() const {
    return tokens.empty() ? 0 : static_cast<int32_t>(tokens.size()) - 1;
  }
};

// What a backend offers, fixed once loaded.
struct Capabilities {
  std::string device;       // "cpu, 2 threads, avx512"
  int64_t page_tokens = 0;  // a multiple of prompt_cut, unless bits depend on no cut at all
  size_t page_bytes = 0;    // one page over all attention layers
  size_t slot_bytes = 0;    // one state slot over all Gated DeltaNet layers
  size_t weight_bytes = 0;  // resident weights
  bool has_mtp = false;
  // Rows of an answer have the bits that the same tokens would have as rows of a prompt.
  bool answers_like_prompts = false;
  int32_t prefill_chunk = 512;  // prompt tokens in one step that make good use of the device
  // Error of one forward pass, relative to the largest value of a tensor, that the roundings of
  // this backend explain; where experts are chosen by a hair, in rows that met the same experts.
  double relative_error = 1e-4;
};

struct Reservation {
  int32_t pages = 0;
  int32_t slots = 0;
  int32_t rows = 0;  // most rows of one batch, workspace
};

// Bytes moved by the steps so far, counted from shapes: what a roofline compares with.
struct Traffic {
  size_t weights = 0;  // each matrix once a step, and only experts that were chosen
  size_t state = 0;    // S read and written
  size_t kv = 0;       // cached keys and values read
  size_t total() const { return weights + state + kv; }
};

// Time spent in one stage of the steps ("attention", "experts") while it was measured.
struct StageTime {
  std::string name;
  double seconds = 0;
  int64_t count = 0;  // how often the stage ran
};

// What observe() shows. `layer` is the layer's index; residual at layer == layers is the output of
// the final norm.
enum class Observed { residual, router_logits, logits, mtp_hidden, mtp_logits };

class Observer {
 public:
  virtual ~Observer() = default;
  // data [rows, width], rows in batch order.
  virtual void observe(Observed what, int layer, int64_t rows, int64_t width,
                       const float* data) = 0;
};

// Sees what the matrices are multiplied with, for calibration.
class InputObserver {
 public:
  virtual ~InputObserver() = default;
  // x [rows, columns]: inputs of these weights, by their Hugging Face names, which all read the
  // same rows. A matrix that a step multiplies comes once a step: an expert with the rows routed to
  // it, lm_head with every row, whether or not logits were asked for.
  virtual void inputs(std::span<const std::string> weights, int64_t rows, int64_t columns,
                      const float* x) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual const Config& config() const = 0;
  virtual const Capabilities& capabilities() const = 0;

  // Drops all pages and slots and makes new ones. Throws Error saying what needed how much.
  virtual void reserve(const Reservation& reservation) = 0;
  // Bytes that reserve() would take in all, workspace included.
  virtual size_t reservation_bytes(const Reservation& reservation) const = 0;

  // One result for each sequence, in order. Throws only if the batch as a whole cannot run.
  virtual std::vector<SequenceResult> step(const Batch& batch) = 0;

  virtual void copy_state(int32_t from, int32_t to) = 0;
  // A slot's bytes out and in; the span is slot_bytes long.
  virtual void export_state(int32_t slot, std::span<std::byte> out) const = 0;
  virtual void import_state(int32_t slot, std::span<const std::byte> in) = 0;

  // A page's bytes, of all layers, out and in; the span is page_bytes long.
  virtual void export_page(int32_t page, std::span<std::byte> out) const = 0;
  virtual void import_page(int32_t page, std::span<const std::byte> in) = 0;

  // For tests and `verify`: every later step shows its inner values (and computes logits for all
  // rows); null ends it. Costs time.
  virtual void observe(Observer* observer) = 0;

  // Every later step shows its matrices' inputs; null ends it. Costs time. False: this backend
  // cannot.
  virtual bool observe_inputs(InputObserver* /*observer*/) { return false; }

  virtual const Traffic& traffic() const = 0;

  // Bytes a second that a plain loop on this device reads from its memory, measured now: the limit
  // that traffic() is held against. Needs a GiB of memory meanwhile.
  virtual double measure_read_bandwidth() = 0;

  // Measures by stage what later steps do, which may make them slower. False: this backend cannot.
  virtual bool start_profile() { return false; }
  // Ends the measuring; the stages in the order in which they first ran.
  virtual std::vector<StageTime> take_profile() { return {}; }
};

}  // namespace qnext::backend
