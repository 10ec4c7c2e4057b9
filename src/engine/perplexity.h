// How well a model predicts a text, and how far one model's predictions are from another's.
//
//   loss of token t       L_t = -log p(t | the tokens before it in its window), in nats
//   perplexity            exp(mean L); standard error exp(mean L) * error of mean L (delta method)
//   divergence at t       KL(reference || candidate) = sum over tokens x of p(x) log(p(x) / q(x))
//
// Standard errors take tokens as independent, which understates them a little. Logits are the
// backend's fp32; softmax and all sums are fp64. Results do not depend on how windows are cut into
// steps (as far as the backend's bits do not) or on the number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/step.h"
#include "base/thread_pool.h"

namespace qnext::engine {

struct ReadingOptions {
  int64_t context = 0;  // tokens of a window
  int64_t stride = 0;   // a window begins so many tokens after the one before
  int32_t chunk = 0;    // rows of a step; 0: what suits the device
  // Called after each step: tokens scored so far, of how many, and their mean loss (the
  // candidate's).
  std::function<void(int64_t scored, int64_t total, double mean_loss)> progress = nullptr;
};

struct Mean {
  double value = 0;
  double standard_error = 0;  // 0 for fewer than two values
};
Mean mean_of(std::span<const double> values);

struct Perplexity {
  std::vector<double> losses;  // nats, of the text's second token, third, ...
  int64_t rows = 0;            // that the model read: more than were scored, as windows overlap

  Mean mean_loss() const { return mean_of(losses); }
  Mean value() const;
  double bits() const;  // that the scored tokens take in all
};

struct Comparison {
  Perplexity candidate;
  Perplexity reference;
  std::vector<double> divergences;  // nats, one a scored token
  int64_t same_top = 0;             // tokens at which both give one token the largest logit

  Mean mean_divergence() const { return mean_of(divergences); }
  // The least divergence that so many percent of the tokens do not exceed (nearest rank).
  double divergence_percentile(double percent) const;
  Mean same_top_share() const;
  // Candidate's perplexity over reference's; the error is that of the paired losses.
  Mean ratio() const;
};

// `tokens` are the text's, at least 2; the options obey text_windows(). `pool` shares the softmax;
// it is not the backend's. Throws Error on a token outside the vocabulary, on options or a text
// that cannot work, where memory lacks, and where logits are not numbers.
Perplexity measure_perplexity(backend::Backend& backend, std::span<const int32_t> tokens,
                              const ReadingOptions& options, ThreadPool& pool);

// Both backends read the text side by side, so that no logits need to be kept. Their vocabularies
// must be of one size.
Comparison compare_models(backend::Backend& candidate, backend::Backend& reference,
                          std::span<const int32_t> tokens, const ReadingOptions& options,
                          ThreadPool& pool);

}  // namespace qnext::engine
