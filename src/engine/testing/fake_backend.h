// A backend for the engine's tests: no arithmetic, but every rule of backend/step.h.
//
// Its "model" is a hash: the token that follows a history is a pure function of all its tokens, and
// for sampled requests of the seed and the position too. Pages really hold the tokens and the MTP
// entries of their positions, and slots the rolling hash of a history, so a page, slot or position
// that the engine gets wrong shows up as a failed check or as another answer.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/step.h"

namespace qnext::engine::testing {

// The history as one number: the hash after no token is 0.
uint64_t extend_history(uint64_t history, int32_t token);

// The penalties as far as the hash model knows them: they make the draw depend on the counts.
uint64_t digest_counts(const ops::SamplingParameters& sampling, const ops::TokenCounts& counts);

// The token at `position`, after `history`; where it is not allowed, the next that is.
int32_t draw_token(uint64_t history, int64_t position, const ops::SamplingParameters& sampling,
                   uint64_t counts_digest, int32_t vocabulary, const uint32_t* allowed = nullptr);

// Value `column` of the hidden state after a history.
float hidden_value(uint64_t history, int64_t column);

struct FakeOptions {
  int32_t vocabulary = 50;
  int64_t page_tokens = 4;
  int64_t context = 100;
  std::vector<int64_t> eos_token_ids = {};
  bool has_mtp = true;
  bool answers_like_prompts = true;
  // The share of proposed tokens that are right. Below zero: a proposal is now and then cut short
  // too.
  double acceptance = 0.7;
  // What a step takes on the fake clock, in seconds; null: nothing.
  std::function<double(const backend::Batch&)> seconds = nullptr;
  // Histories that this sequence step must fail on; null: none.
  std::function<bool(std::span<const int32_t> history)> fails = nullptr;
  // The logits, [vocabulary], of the token that follows a history, in place of the hash.
  std::function<std::vector<float>(std::span<const int32_t> history)> logits = nullptr;
};

class FakeBackend : public backend::Backend {
 public:
  explicit FakeBackend(const FakeOptions& options);

  const Config& config() const override { return config_; }
  const backend::Capabilities& capabilities() const override { return capabilities_; }
  void reserve(const backend::Reservation& reservation) override;
  size_t reservation_bytes(const backend::Reservation& reservation) const override;
  std::vector<backend::SequenceResult> step(const backend::Batch& batch) override;
  void copy_state(int32_t from, int32_t to) override;
  void export_state(int32_t slot, std::span<std::byte> out) const override;
  void import_state(int32_t slot, std::span<const std::byte> in) override;
  void export_page(int32_t page, std::span<std::byte> out) const override;
  void import_page(int32_t page, std::span<const std::byte> in) override;
  void observe(backend::Observer*) override {}
  const backend::Traffic& traffic() const override { return traffic_; }
  double measure_read_bandwidth() override { return 1; }

  FakeOptions options;
  double clock = 0;  // seconds
  // The next step throws this and does nothing.
  std::optional<std::string> throw_next;
  // What the steps were, for tests of the policy.
  struct SeenSequence {
    int64_t first_position = 0;
    int32_t rows = 0;
    int32_t drafts = 0;
    bool draw = false;
    bool answer = false;
    bool mtp = false;
    int32_t first_token = 0;
  };
  std::vector<std::vector<SeenSequence>> steps;
  const backend::Reservation& reservation() const { return reservation_; }

 private:
  struct Cell {
    std::optional<int32_t> token;
    std::optional<int32_t> mtp_next;  // the MTP entry was made with this token following
  };
  struct Slot {
    bool written = false;
    uint64_t history = 0;
    int64_t length = 0;
  };

  Cell& cell(const backend::SequenceStep& step, int64_t position);
  void check_batch(const backend::Batch& batch) const;
  // Tokens 0 .. first_position - 1, read from the pages.
  std::vector<int32_t> read_history(const backend::SequenceStep& step);
  backend::SequenceResult run_sequence(const backend::SequenceStep& step);
  // `tokens`: all of the sequence, the step's rows last; `history` of those before them.
  std::vector<ops::SampledToken> run_rows(const backend::SequenceStep& step,
                                          std::span<const int32_t> tokens, uint64_t history);
  int32_t draw(const backend::SequenceStep& step, std::span<const int32_t> tokens, uint64_t history,
               const ops::TokenCounts& counts, const uint32_t* allowed) const;
  void write_mtp(const backend::SequenceStep& step, const std::vector<ops::SampledToken>& drawn);
  // `tokens` and `history` of the sequence up to its first draft.
  std::vector<int32_t> propose(const backend::SequenceStep& step, std::vector<int32_t> tokens,
                               uint64_t history, const std::vector<ops::SampledToken>& drawn);

  Config config_;
  backend::Capabilities capabilities_;
  backend::Reservation reservation_;
  backend::Traffic traffic_;
  std::vector<Cell> cells_;  // [pages, page_tokens]
  std::vector<Slot> slots_;
};

}  // namespace qnext::engine::testing
