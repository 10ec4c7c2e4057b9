#include "engine/testing/fake_backend.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"

namespace qnext::engine::testing {
namespace {

// The finaliser of SplitMix64 (Steele et al. 2014).
uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

double uniform(uint64_t value) {
  return static_cast<double>(mix(value) >> 11) * 0x1p-53;
}

}  // namespace

uint64_t extend_history(uint64_t history, int32_t token) {
  return mix(history ^ mix(static_cast<uint64_t>(token) + 1));
}

uint64_t digest_counts(const ops::SamplingParameters& sampling, const ops::TokenCounts& counts) {
  if (sampling.presence_penalty == 0 && sampling.repetition_penalty == 1) return 0;
  uint64_t digest = 0;
  for (const auto& entry : counts.entries())
    digest +=
        mix(mix(mix(static_cast<uint64_t>(entry.token)) + static_cast<uint64_t>(entry.in_prompt)) +
            static_cast<uint64_t>(entry.in_answer));
  return digest;
}

int32_t draw_token(uint64_t history, int64_t position, const ops::SamplingParameters& sampling,
                   uint64_t counts_digest, int32_t vocabulary, const uint32_t* allowed) {
  uint64_t value = mix(history ^ counts_digest);
  if (sampling.temperature > 0)
    value = mix(value ^ mix(sampling.seed) ^ static_cast<uint64_t>(position));
  auto token = static_cast<int32_t>(value % static_cast<uint64_t>(vocabulary));
  for (int32_t tried = 0; allowed && (allowed[token / 32] >> (token % 32) & 1) == 0; ++tried) {
    QNEXT_CHECK(tried < vocabulary, "the mask allows no token");
    token = (token + 1) % vocabulary;
  }
  return token;
}

float hidden_value(uint64_t history, int64_t column) {
  return static_cast<float>(uniform(history ^ static_cast<uint64_t>(column)) - 0.5);
}

FakeBackend::FakeBackend(const FakeOptions& wanted) : options(wanted) {
  config_.vocabulary_size = options.vocabulary;
  config_.hidden_size = 3;
  config_.layers.resize(48);
  config_.max_position_embeddings = options.context;
  config_.eos_token_ids = options.eos_token_ids;
  capabilities_.device = "fake";
  capabilities_.page_tokens = options.page_tokens;
  capabilities_.has_mtp = options.has_mtp;
  capabilities_.page_bytes = static_cast<size_t>(options.page_tokens) * sizeof(Cell);
  capabilities_.slot_bytes = sizeof(Slot);
  capabilities_.answers_like_prompts = options.answers_like_prompts;
}

void FakeBackend::reserve(const backend::Reservation& reservation) {
  reservation_ = reservation;
  const auto positions = static_cast<size_t>(reservation.pages * options.page_tokens);
  cells_.assign(positions, Cell{});
  slots_.assign(static_cast<size_t>(reservation.slots), Slot{});
}

size_t FakeBackend::reservation_bytes(const backend::Reservation& reservation) const {
  return static_cast<size_t>(reservation.pages);
}

void FakeBackend::copy_state(int32_t from, int32_t to) {
  slots_.at(static_cast<size_t>(to)) = slots_.at(static_cast<size_t>(from));
}
void FakeBackend::export_state(int32_t slot, std::span<std::byte> out) const {
  const Slot& from = slots_.at(static_cast<size_t>(slot));
  QNEXT_CHECK(from.written && out.size() == sizeof from);
  std::memcpy(out.data(), &from, sizeof from);
}
void FakeBackend::import_state(int32_t slot, std::span<const std::byte> in) {
  Slot& to = slots_.at(static_cast<size_t>(slot));
  QNEXT_CHECK(in.size() == sizeof to);
  std::memcpy(&to, in.data(), sizeof to);
}

void FakeBackend::export_page(int32_t page, std::span<std::byte> out) const {
  QNEXT_CHECK(page >= 0 && page < reservation_.pages && out.size() == capabilities_.page_bytes);
  std::memcpy(out.data(), &cells_[static_cast<size_t>(page * options.page_tokens)], out.size());
}
void FakeBackend::import_page(int32_t page, std::span<const std::byte> in) {
  QNEXT_CHECK(page >= 0 && page < reservation_.pages && in.size() == capabilities_.page_bytes);
  std::memcpy(&cells_[static_cast<size_t>(page * options.page_tokens)], in.data(), in.size());
}

FakeBackend::Cell& FakeBackend::cell(const backend::SequenceStep& step, int64_t position) {
  const auto page = static_cast<size_t>(position / options.page_tokens);
  QNEXT_CHECK(page < step.pages.size(), "position {} is beyond the page table", position);
  const int64_t number = step.pages[page];
  return cells_[static_cast<size_t>(number * options.page_tokens + position % options.page_tokens)];
}

void FakeBackend::check_batch(const backend::Batch& batch) const {
  std::set<int32_t> written_pages;
  std::set<int32_t> read_pages;
  std::set<int32_t> slots;
  int64_t rows = 0;
  QNEXT_CHECK(!batch.sequences.empty());
  for (const backend::SequenceStep& step : batch.sequences) {
    const int64_t own_rows = std::ssize(step.tokens);
    rows += own_rows;
    QNEXT_CHECK(own_rows >= 1 && std::ssize(step.state_out) == own_rows);
    QNEXT_CHECK(step.drafts >= 0 && step.drafts < own_rows && step.propose >= 0);
    QNEXT_CHECK(step.draw || (step.drafts == 0 && step.propose == 0 && !step.answer));
    QNEXT_CHECK(step.answer || step.drafts == 0);
    QNEXT_CHECK(!step.answer || own_rows == 1 + step.drafts);
    QNEXT_CHECK(!step.draw || (step.sampling && step.counts));
    QNEXT_CHECK(step.allowed.empty() || (step.draw && std::ssize(step.allowed) == 1 + step.drafts));
    QNEXT_CHECK(step.propose == 0 || (step.mtp && options.has_mtp));
    QNEXT_CHECK(std::ssize(step.pages) * options.page_tokens >=
                step.first_position + own_rows + step.propose);
    QNEXT_CHECK(step.first_position + own_rows + step.propose <= options.context);
    for (int64_t i = 0; i < std::ssize(step.pages); ++i) {
      const int32_t page = step.pages[static_cast<size_t>(i)];
      QNEXT_CHECK(page >= 0 && page < reservation_.pages);
      if (i < step.first_position / options.page_tokens)
        read_pages.insert(page);
      else
        QNEXT_CHECK(written_pages.insert(page).second, "page {} has two writers", page);
    }
    for (const int32_t token : step.tokens) QNEXT_CHECK(token >= 0 && token < options.vocabulary);

    if (step.state_in == backend::no_slot) {
      QNEXT_CHECK(step.first_position == 0);
    } else {
      QNEXT_CHECK(step.state_in >= 0 && step.state_in < reservation_.slots);
      const Slot& slot = slots_[static_cast<size_t>(step.state_in)];
      QNEXT_CHECK(slot.written && slot.length == step.first_position);
      QNEXT_CHECK(slots.insert(step.state_in).second, "slot {} is shared", step.state_in);
    }
    for (int64_t row = 0; row < own_rows; ++row) {
      const int32_t slot = step.state_out[static_cast<size_t>(row)];
      if (slot == backend::no_slot) continue;
      QNEXT_CHECK(slot >= 0 && slot < reservation_.slots);
      const bool in_place = row == own_rows - 1 && slot == step.state_in;
      QNEXT_CHECK(in_place || slots.insert(slot).second, "slot {} is named twice", slot);
    }
  }
  for (const int32_t page : read_pages)
    QNEXT_CHECK(!written_pages.contains(page), "page {} is shared and written", page);
  QNEXT_CHECK(rows <= reservation_.rows, "{} rows, {} reserved", rows, reservation_.rows);
}

std::vector<int32_t> FakeBackend::read_history(const backend::SequenceStep& step) {
  std::vector<int32_t> history;
  for (int64_t position = 0; position < step.first_position; ++position) {
    const Cell& read = cell(step, position);
    QNEXT_CHECK(read.token, "position {} was never written", position);
    history.push_back(*read.token);
  }
  return history;
}

namespace {

const uint32_t* allowed_by(const backend::SequenceStep& step, int64_t drawing_row) {
  return step.allowed.empty() ? nullptr : step.allowed[static_cast<size_t>(drawing_row)];
}

}  // namespace

// The token that follows `tokens`.
int32_t FakeBackend::draw(const backend::SequenceStep& step, std::span<const int32_t> tokens,
                          uint64_t history, const ops::TokenCounts& counts,
                          const uint32_t* allowed) const {
  const int64_t position = std::ssize(tokens);
  if (!options.logits)
    return draw_token(history, position, *step.sampling, digest_counts(*step.sampling, counts),
                      options.vocabulary, allowed);
  const std::vector<float> logits = options.logits(tokens);
  return ops::sample(logits.data(), options.vocabulary, *step.sampling, counts, position, allowed)
      .token;
}

// Writes the rows and their states; draws while drafts are right.
std::vector<ops::SampledToken> FakeBackend::run_rows(const backend::SequenceStep& step,
                                                     std::span<const int32_t> tokens,
                                                     uint64_t history) {
  std::vector<ops::SampledToken> drawn;
  ops::TokenCounts counts = step.counts ? *step.counts : ops::TokenCounts{};
  const int64_t rows = std::ssize(step.tokens);
  bool right = true;
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t token = step.tokens[static_cast<size_t>(row)];
    const int64_t position = step.first_position + row;
    history = extend_history(history, token);
    cell(step, position) = {.token = token, .mtp_next = std::nullopt};
    const int32_t slot = step.state_out[static_cast<size_t>(row)];
    if (slot != backend::no_slot) slots_[static_cast<size_t>(slot)] = {true, history, position + 1};
    for (int64_t column = 0; step.hidden && column < config_.hidden_size; ++column)
      step.hidden[row * config_.hidden_size + column] = hidden_value(history, column);

    if (!step.draw || row < rows - 1 - step.drafts || !right) continue;
    int32_t next = draw(step, tokens.first(static_cast<size_t>(position) + 1), history, counts,
                        allowed_by(step, row - (rows - 1 - step.drafts)));
    const bool judges = row + 1 < rows;  // the draft behind it
    if (judges && row - (rows - 1 - step.drafts) < step.force_accepted)
      next = step.tokens[static_cast<size_t>(row) + 1];
    drawn.push_back({.token = next, .logprob = -1, .top = {}});
    counts.add(next, true);
    right = judges && step.tokens[static_cast<size_t>(row) + 1] == next;
    if (judges && step.force_accepted >= 0)
      right = row - (rows - 1 - step.drafts) < step.force_accepted;
  }
  return drawn;
}

// The MTP entry of each good row, made with the token that follows it.
void FakeBackend::write_mtp(const backend::SequenceStep& step,
                            const std::vector<ops::SampledToken>& drawn) {
  for (int64_t position = 0; position < step.first_position; ++position) {
    const int32_t next =
        position + 1 < step.first_position ? *cell(step, position + 1).token : step.tokens[0];
    QNEXT_CHECK(cell(step, position).mtp_next == next, "MTP entry {} is out of step", position);
  }
  const int64_t drawn_rows = step.draw ? 1 + step.drafts : 0;
  const int64_t good_rows = std::ssize(step.tokens) - drawn_rows + std::ssize(drawn);
  for (int64_t row = 0; row < good_rows; ++row) {
    const bool last = row == good_rows - 1;
    const int32_t next = !last       ? step.tokens[static_cast<size_t>(row) + 1]
                         : step.draw ? drawn.back().token
                                     : step.next_token;
    cell(step, step.first_position + row).mtp_next = next;
  }
}

std::vector<int32_t> FakeBackend::propose(const backend::SequenceStep& step,
                                          std::vector<int32_t> tokens, uint64_t history,
                                          const std::vector<ops::SampledToken>& drawn) {
  ops::TokenCounts counts = *step.counts;
  const auto extend = [&](int32_t token) {
    tokens.push_back(token);
    history = extend_history(history, token);
    counts.add(token, true);
  };
  for (int32_t i = 0; i < std::ssize(drawn) - 1; ++i) extend(drawn[static_cast<size_t>(i)].token);
  std::vector<int32_t> proposed;
  int32_t last = drawn.back().token;
  while (std::ssize(proposed) < step.propose) {
    extend(last);
    last = draw(step, tokens, history, counts, nullptr);
    const double luck = uniform(history);
    if (options.acceptance < 0 && luck < 0.1) break;
    if (luck >= std::abs(options.acceptance)) last = (last + 1) % options.vocabulary;
    proposed.push_back(last);
  }
  // Drafting writes over the MTP entries that follow the last good row.
  const int64_t end = step.first_position + std::ssize(step.tokens) + step.propose;
  for (int64_t behind =
           step.first_position + std::ssize(step.tokens) - step.drafts + std::ssize(drawn) - 1;
       behind < end; ++behind)
    cell(step, behind).mtp_next = -1;
  return proposed;
}

backend::SequenceResult FakeBackend::run_sequence(const backend::SequenceStep& step) {
  backend::SequenceResult result;
  std::vector<int32_t> tokens = read_history(step);
  uint64_t history = 0;
  for (const int32_t token : tokens) history = extend_history(history, token);
  if (step.state_in != backend::no_slot)
    QNEXT_CHECK(slots_[static_cast<size_t>(step.state_in)].history == history,
                "pages and state slot tell different histories");

  tokens.insert(tokens.end(), step.tokens.begin(), step.tokens.end());
  if (options.fails && options.fails(tokens)) {
    result.error = "the logits are not numbers";
    return result;
  }
  result.tokens = run_rows(step, tokens, history);
  if (step.mtp) write_mtp(step, result.tokens);
  if (step.propose > 0) {
    const int64_t settled = std::ssize(step.tokens) - step.drafts;
    for (int64_t row = 0; row < settled; ++row)
      history = extend_history(history, step.tokens[static_cast<size_t>(row)]);
    tokens.resize(tokens.size() - static_cast<size_t>(step.drafts));
    result.proposed = propose(step, std::move(tokens), history, result.tokens);
  }
  return result;
}

std::vector<backend::SequenceResult> FakeBackend::step(const backend::Batch& batch) {
  if (throw_next) {
    const std::string text = *throw_next;
    throw_next.reset();
    fail("{}", text);
  }
  check_batch(batch);
  if (options.seconds) clock += options.seconds(batch);
  std::vector<SeenSequence>& seen = steps.emplace_back();
  std::vector<backend::SequenceResult> results;
  for (const backend::SequenceStep& step : batch.sequences) {
    seen.push_back({step.first_position, static_cast<int32_t>(step.tokens.size()), step.drafts,
                    step.draw, step.answer, step.mtp, step.tokens[0]});
    results.push_back(run_sequence(step));
  }
  return results;
}

}  // namespace qnext::engine::testing
