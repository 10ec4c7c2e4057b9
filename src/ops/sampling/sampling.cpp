#include "ops/sampling/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "ops/sampling/candidates.h"
#include "ops/sampling/penalties.h"
#include "ops/sampling/sampling_vector.h"

namespace qnext::ops {

namespace {

// Draws from the tempered distribution of scanned logits.
class Draw {
 public:
  Draw(LogitScan& scan, const float* logits, int64_t vocabulary,
       const SamplingParameters& parameters, std::vector<Candidate>& candidates)
      : scan_(scan),
        logits_(logits),
        vocabulary_(vocabulary),
        parameters_(parameters),
        candidates_(candidates),
        inverse_temperature_(1 / static_cast<double>(parameters.temperature)),
        maximum_(static_cast<double>(scan.maximum())) {}

  int32_t token(double uniform) {
    const bool top_k = parameters_.top_k > 0 && parameters_.top_k < vocabulary_;
    const bool top_p = parameters_.top_p < 1;
    const bool min_p = parameters_.min_p > 0;
    if (!top_k && !top_p && !min_p) return from_all(uniform);
    if (top_k) {
      scan_.most_probable(parameters_.top_k, candidates_);
      if (top_p) cut_to_nucleus(total_weight());
    } else if (top_p) {
      find_nucleus();
    } else {
      scan_.at_least(min_p_bound(), candidates_);
    }
    if (min_p)
      std::erase_if(candidates_, [&](const Candidate& candidate) {
        return weight(candidate.logit) < static_cast<double>(parameters_.min_p);
      });
    return from_candidates(uniform);
  }

 private:
  // Relative to the most probable token's.
  double weight(float logit) const {
    double share[] = {(static_cast<double>(logit) - maximum_) * inverse_temperature_};
    exponentiate<uint64_t>(share);
    return share[0];
  }

  double total_weight() const {
    double total = 0;
    for (const Candidate& candidate : candidates_) total += weight(candidate.logit);
    return total;
  }

  // Keeps the first candidates whose weight reaches top_p of `total`; false where all together do
  // not.
  bool cut_to_nucleus(double total) {
    const double enough = static_cast<double>(parameters_.top_p) * total;
    double sum = 0;
    size_t kept = 0;
    while (kept < candidates_.size() && sum < enough) sum += weight(candidates_[kept++].logit);
    candidates_.resize(kept);
    return sum >= enough;
  }

  // Looks at more and more of the most probable tokens: nearly always the first few are enough.
  void find_nucleus() {
    double total = 0;
    for (double sum : scan_.sums(inverse_temperature_)) total += sum;
    for (int64_t count = 64;; count *= 8) {
      scan_.most_probable(std::min(count, vocabulary_), candidates_);
      if (cut_to_nucleus(total) || count >= vocabulary_) return;
    }
  }

  // A little below the logit at which the weight is min_p: `weight` decides in the end.
  float min_p_bound() const {
    const double temperature = static_cast<double>(parameters_.temperature);
    const double bound = maximum_ + temperature * std::log(static_cast<double>(parameters_.min_p));
    return static_cast<float>(bound - 1e-6 * (std::abs(bound) + std::abs(maximum_) + temperature));
  }

  // The inverse of the cumulative distribution, tokens in ascending order.
  int32_t from_candidates(double uniform) {
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
    const double target = uniform * total_weight();
    double sum = 0;
    int32_t chosen = -1;
    for (const Candidate& candidate : candidates_) {
      const double share = weight(candidate.logit);
      if (share == 0) continue;
      chosen = candidate.token;
      sum += share;
      if (sum > target) break;
    }
    QNEXT_CHECK(chosen >= 0);  // the most probable token's weight is 1
    return chosen;
  }

  // The same over the whole vocabulary: first the block, then the token within.
  int32_t from_all(double uniform) {
    const std::vector<double>& sums = scan_.sums(inverse_temperature_);
    double total = 0;
    for (double sum : sums) total += sum;
    double target = uniform * total;
    size_t chosen = 0;
    double before = 0;
    double sum = 0;
    for (size_t block = 0; block < sums.size(); ++block) {
      if (sums[block] == 0) continue;
      chosen = block;
      before = sum;
      sum += sums[block];
      if (sum > target) break;
    }
    candidates_.clear();
    const int64_t begin = static_cast<int64_t>(chosen) * logit_block;
    const int64_t end = std::min(begin + logit_block, vocabulary_);
    for (int64_t i = begin; i < end; ++i)
      candidates_.push_back({logits_[i], static_cast<int32_t>(i)});
    return from_candidates((target - before) / sums[chosen]);
  }

  LogitScan& scan_;
  const float* logits_;
  int64_t vocabulary_;
  const SamplingParameters& parameters_;
  std::vector<Candidate>& candidates_;
  double inverse_temperature_;
  double maximum_;
};

// Kept by each thread between calls: a vocabulary's worth of memory.
struct Scratch {
  std::vector<float> logits;
  std::vector<Candidate> candidates;
  LogitScan scan;
};

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

// Words of a mask are mostly all or nothing.
void forbid(std::vector<float>& logits, const uint32_t* allowed) {
  constexpr float never = -std::numeric_limits<float>::infinity();
  // A damaged weight is found whether or not its token may come.
  const auto forbid_one = [&](size_t token) {
    if (!std::isnan(logits[token])) logits[token] = never;
  };
  for (size_t word = 0; word * 32 < logits.size(); ++word) {
    const uint32_t bits = allowed[word];
    if (bits == ~uint32_t{0}) continue;
    const size_t end = std::min(word * 32 + 32, logits.size());
    for (size_t token = word * 32; token < end; ++token)
      if ((bits >> (token % 32) & 1) == 0) forbid_one(token);
  }
}

void add_logprobs(const float* logits, int32_t count, Scratch& scratch, SampledToken& result) {
  double total = 0;
  for (double sum : scratch.scan.sums(1)) total += sum;
  const double log_total = static_cast<double>(scratch.scan.maximum()) + std::log(total);
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(static_cast<double>(logits[token]) - log_total);
  };
  result.logprob = logprob(result.token);
  if (count == 0) return;
  scratch.scan.most_probable(count, scratch.candidates);
  for (const Candidate& candidate : scratch.candidates)
    result.top.push_back({candidate.token, logprob(candidate.token)});
}

}  // namespace

int32_t argmax(const float* logits, int64_t vocabulary) {
  LogitScan& scan = thread_scratch().scan;
  scan.scan(logits, vocabulary);
  return scan.best();
}

SampledToken sample(const float* logits, int64_t vocabulary, const SamplingParameters& parameters,
                    const TokenCounts& counts, int64_t position, const uint32_t* allowed) {
  Scratch& scratch = thread_scratch();
  const auto changes = adjusted_logits(logits, vocabulary, parameters, counts);
  const float* adjusted = logits;
  if (!changes.empty() || allowed) {
    scratch.logits.assign(logits, logits + vocabulary);
    for (const auto& [token, logit] : changes) scratch.logits[static_cast<size_t>(token)] = logit;
    if (allowed) forbid(scratch.logits, allowed);
    adjusted = scratch.logits.data();
  }
  scratch.scan.scan(adjusted, vocabulary);
  SampledToken result;
  if (parameters.temperature == 0)
    result.token = scratch.scan.best();
  else
    result.token = Draw(scratch.scan, adjusted, vocabulary, parameters, scratch.candidates)
                       .token(philox_uniform(parameters.seed, static_cast<uint64_t>(position)));
  if (parameters.logprobs >= 0) {
    if (adjusted != logits) scratch.scan.scan(logits, vocabulary);
    add_logprobs(logits, parameters.logprobs, scratch, result);
  }
  return result;
}

}  // namespace qnext::ops
