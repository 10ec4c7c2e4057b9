// Tokens drawn on the GPU by the rules of sampling.h; conventions in ops/batch_cuda.h. Launches may
// overlap their neighbours (launch_cuda.cuh) and may be captured: all parameters lie on the device,
// so that a captured graph draws with new ones.
//
// The token is the one that ops::sample gives for the same logits, parameters and position:
//   greedy, no truncation, and up to 1,024 tokens left over by the truncation (and by one step of a
//   histogram more): the very same doubles, and sums that decide as the CPU's do: always the same;
//   wider truncations: sums are associated otherwise, and with more than 1,024 tokens at the border
//   (equal logits, say) each weight is rounded to 2^-44: the border of the set moves where it is
//   decided by less than 1e-8 of the distribution, and the draw where by less than 1e-12.
// Logprobs are not computed here: as the token is the same, whoever wants them calls ops::sample on
// the logits in his own time.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "ops/sampling/sampling.h"

namespace qnext::ops::cuda {

// What one token's logit becomes before anything else: logit bias, then the penalties.
struct LogitChange {
  double bias = 0;
  int32_t token = 0;
  int32_t in_answer = not_seen;  // how often the answer holds it; 0: in the prompt alone

  static constexpr int32_t not_seen = -1;
};

// SamplingParameters of one row as plain numbers; valid as validate() says.
struct RowSampling {
  uint64_t seed = 0;
  int64_t position = 0;  // of the token to be drawn
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float repetition_penalty = 1;
  int32_t first_change = 0;  // in the array of changes; each token once
  int32_t changes = 0;
  int32_t unused = 0;

  bool operator==(const RowSampling&) const = default;
};

// The row's parameters; its changes are appended to `changes`. Host memory. Throws Error where a
// token lies outside the vocabulary.
RowSampling row_sampling(const SamplingParameters& parameters, const TokenCounts& counts,
                         int64_t vocabulary, int64_t position, std::vector<LogitChange>& changes);

// The widest vocabulary that sample_rows takes: a row lies in the shared memory of eight blocks.
constexpr int64_t widest_sampled_vocabulary = 320'000;

// Sums in any order agree to 320,000 / 64 * 2^-53 of their total, the few of them behind a decision
// to this; nearer to a border, the decision is taken by sums in the CPU's order. Tests pass more.
constexpr double rounding_doubt = 0x1p-38;

// tokens[r] = the token drawn from logits [rows, vocabulary] with parameters[r]; -1 if the
// (changed) row holds a NaN or its largest value is infinite: the rows that ops::sample refuses.
// Rows are `stride` floats apart; 16-byte aligned rows load faster. Throws Error where the
// vocabulary is wider than widest_sampled_vocabulary. `copy` receives the tokens too, unless null:
// the kernel may write them to the host's memory, beside the device's.
void sample_rows(cudaStream_t stream, const float* logits, int64_t stride, int64_t rows,
                 int64_t vocabulary, const RowSampling* parameters, const LogitChange* changes,
                 int32_t* tokens, int32_t* copy = nullptr, double doubt = rounding_doubt);

// The same where every row is greedy and has no changes: no parameters, and at the memory's speed.
void greedy_rows(cudaStream_t stream, const float* logits, int64_t stride, int64_t rows,
                 int64_t vocabulary, int32_t* tokens, int32_t* copy = nullptr);

}  // namespace qnext::ops::cuda
