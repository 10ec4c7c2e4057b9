#include "engine/speculation.h"

#include <algorithm>
#include <limits>

#include "engine/scheduler.h"
#include "engine/sequence.h"

namespace qnext::engine {
namespace {

// The first step of a new depth verifies drafts of the old one and tells nothing about it.
constexpr int32_t steps_between_choices = 4;
// A draft less likely than that to be right costs more than it gives wherever rows cost anything.
constexpr double least_chance = 0.2;
constexpr int32_t steps_between_reviews = 512;  // of whether a sequence lets go

constexpr double acceptance_weight = 1.0 / 8;  // of the newest draft
constexpr double usual_weight = 1.0 / 64;
// Slower steps may be the noise of the machine, faster ones are never.
constexpr double slower_weight = 1.0 / 8;
// The drifts. A try lasts steps_between_choices and loses a fraction of each; between two tries lie
// about 1024 ln(loss + 1) steps of a depth that is too slow, or 50 to 100 steps of a sequence whose
// drafts are wrong.
constexpr double hope = 0.8;  // where acceptances drift to: that of a good head
constexpr double acceptance_drift = 1.0 / 512;
constexpr double discount_drift = 1.0 / 1024;

// Steps of nearly as many rows take nearly as long: up to 8 exactly, above in quarters of an
// octave.
int32_t rounded_rows(int32_t rows) {
  int32_t unit = 1;
  while (rows / unit > 8) unit *= 2;
  return rows / unit * unit;
}

// The drafts of a sequence where `depth` are chosen for all.
int32_t depth_of(const Sequence& sequence, int32_t depth) {
  const DraftRecord& record = sequence.speculation;
  if (!record.head_in_step) return 0;
  int32_t drafts = 0;
  double chance = record.acceptance;
  while (drafts < std::min(depth, sequence.speculate) && chance >= least_chance) {
    ++drafts;
    chance *= record.acceptance;
  }
  return drafts;
}

double expected_tokens(double acceptance, int32_t drafts) {
  double tokens = 1;
  double chance = 1;
  for (int32_t i = 0; i < drafts; ++i) tokens += chance *= acceptance;
  return tokens;
}

void average_in(double& average, double value, double weight) {
  average += weight * (value - average);
}

}  // namespace

// A token gained has cost a row: one that pays for itself and the head is worth two.
Speculation::Speculation(bool adaptive, size_t layers)
    : adaptive_(adaptive),
      least_gain_(2 * steps_between_reviews / (static_cast<int32_t>(layers) + 1)) {}

void Speculation::join(Sequence& sequence) const {
  DraftRecord& record = sequence.speculation;
  record.acceptance = usual_acceptance_;
  record.head_in_step = sequence.speculate > 0;
  record.wanted = adaptive_ ? depth_of(sequence, depth_) : sequence.speculate;
}

void Speculation::choose(std::span<Sequence* const> running) {
  if (!adaptive_) return;
  std::vector<Sequence*> decoding;
  for (Sequence* sequence : running)
    if (!sequence->prefilling()) decoding.push_back(sequence);
  if (decoding.empty()) return;
  if (steps_left_ == 0 || decoding.size() != chosen_for_) {
    depth_ = best_depth(decoding);
    steps_left_ = steps_between_choices;
    chosen_for_ = decoding.size();
  }
  --steps_left_;
  for (Sequence* sequence : running) sequence->speculation.wanted = depth_of(*sequence, depth_);
}

int32_t Speculation::best_depth(std::span<Sequence* const> decoding) {
  std::vector<Timing*> options;  // by depth
  int32_t best = 0;
  double best_rate = 0;
  for (int32_t depth = 0, drafts_before = -1;; ++depth) {
    int32_t drafts = 0;
    double tokens = 0;
    for (const Sequence* sequence : decoding) {
      const int32_t own = depth_of(*sequence, depth);
      drafts += own;
      tokens += expected_tokens(sequence->speculation.acceptance, own);
    }
    if (drafts == drafts_before) break;  // nobody goes deeper
    drafts_before = drafts;
    const int32_t rows = static_cast<int32_t>(decoding.size()) + drafts;
    const double seconds = predict(rows, depth);
    if (seconds == 0) return depth;
    options.push_back(&timing(rows, depth));
    const double rate = tokens / seconds;
    if (rate <= best_rate) continue;
    best_rate = rate;
    best = depth;
  }
  for (Timing* option : options)
    if (option != options[static_cast<size_t>(best)])
      option->discount *= 1 - steps_between_choices * discount_drift;
  return best;
}

Speculation::Timing& Speculation::timing(int32_t rows, int32_t depth) {
  return timings_[{depth, rounded_rows(rows)}];
}

// What a step of this shape takes, or, where none was timed, what one of nearly as many rows takes;
// 0: none of them was.
double Speculation::predict(int32_t rows, int32_t depth) {
  const Timing& shape = timing(rows, depth);
  if (shape.seconds > 0) return shape.seconds * shape.discount;
  double nearest = 1.5;  // the ratio of rows
  double seconds = 0;
  for (const auto& [key, other] : timings_) {
    if (key.first != depth || other.seconds == 0) continue;
    const double ratio = static_cast<double>(key.second) / rows;
    const double distance = std::max(ratio, 1 / ratio);
    if (distance > nearest) continue;
    nearest = distance;
    seconds = other.seconds;
  }
  return seconds * shape.discount;
}

void Speculation::timed(std::span<const PlannedStep> plan, double seconds) {
  if (!adaptive_) return;
  int32_t rows = 0;
  for (const PlannedStep& step : plan) {
    const int32_t wanted = step.sequence->speculation.wanted;
    if (step.sequence->prefilling() || step.drafts != wanted || step.propose != wanted) return;
    rows += step.rows;
  }
  Timing& shape = timing(rows, depth_);
  shape.discount = 1;
  if (shape.seconds == 0 || seconds < shape.seconds)
    shape.seconds = std::max(seconds, std::numeric_limits<double>::min());
  else
    average_in(shape.seconds, seconds, slower_weight);
}

void Speculation::judged(DraftRecord& record, int32_t drafts, int32_t accepted) {
  if (!adaptive_) return;
  for (int32_t i = 0; i < std::min(accepted + 1, drafts); ++i) {
    const double right = i < accepted ? 1 : 0;
    average_in(record.acceptance, right, acceptance_weight);
    average_in(usual_acceptance_, right, usual_weight);
  }
  if (drafts == 0) average_in(record.acceptance, hope, acceptance_drift);
  record.gained += accepted;
  if (++record.steps < steps_between_reviews) return;
  if (record.gained < least_gain_) record.head_in_step = false;
  record.steps = record.gained = 0;
}

}  // namespace qnext::engine
