// From logits to a token: penalties, temperature, truncation, one reproducible draw, logprobs.
//
// Order (that of the Hugging Face samplers): logit bias, repetition penalty, presence and frequency
// penalties, temperature, then top_k, top_p, min_p.
//   repetition  logit > 0 ? logit / r : logit * r    tokens of the prompt and of the answer
//   presence    logit - p                            tokens of the answer
//   frequency   logit - f * count                    tokens of the answer
// An adjusted logit is computed in double and rounded to float once. Then, each on what the one
// before left over, renormalised:
//   top_k       the k most probable tokens
//   top_p       the smallest set of most probable tokens whose probability reaches p
//   min_p       tokens at least min_p times as probable as the most probable one
// Ties between equal logits go to the lower token id everywhere, greedy included.
//
// A mask names the tokens that may be drawn at all; the others count as -infinity before all of
// this, so that truncation, penalties and temperature act among those that may come.
//
// The draw is a pure function of (seed, position): Philox 4x32-10 (Salmon et al. 2011) with the
// seed as key and the position as counter. A request gives the same text whatever the threads, the
// batch around it, or whether its tokens were drafted: a draft is accepted exactly if it equals
// the token that this draw gives, which accepts it with its probability under the model and so
// leaves the distribution unchanged.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

namespace qnext::ops {

struct SamplingParameters {
  float temperature = 0;  // 0: greedy
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // 1: off
  float min_p = 0;        // 0: off
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float repetition_penalty = 1;
  std::vector<std::pair<int32_t, float>> logit_bias = {};
  uint64_t seed = 0;
  // -1: none. Otherwise the chosen token's logprob and those of this many most probable tokens,
  // from the softmax of the unmodified logits: what the model says, mask or not, as the
  // OpenAI-compatible servers give them.
  int32_t logprobs = -1;
};

// Throws Error naming the parameter that is out of range and the range.
void validate(const SamplingParameters& parameters, int64_t vocabulary);

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};
struct SampledToken {
  int32_t token = 0;
  float logprob = 0;              // valid where logprobs were asked for
  std::vector<TokenLogprob> top;  // most probable first
};

// Tokens seen so far, for the penalties: each distinct token once.
class TokenCounts {
 public:
  struct Entry {
    int32_t token = 0;
    int32_t in_prompt = 0;
    int32_t in_answer = 0;
  };
  // Amortised constant time.
  void add(int32_t token, bool answer);
  // In the order of first appearance.
  const std::vector<Entry>& entries() const { return entries_; }
  bool empty() const { return entries_.empty(); }

 private:
  std::vector<Entry> entries_;
  std::unordered_map<int32_t, size_t> place_;  // of a token in entries_
};

// `position` is the position of the token to be drawn. logits [vocabulary] are left as they are.
// `allowed` [(vocabulary + 31) / 32]: bit t % 32 of word t / 32 says whether token t may be drawn;
// null: all may. A logit of -infinity is never drawn. Throws Error if one is NaN or +infinity
// (damaged weights) or all are -infinity; never returns a token out of range.
SampledToken sample(const float* logits, int64_t vocabulary, const SamplingParameters& parameters,
                    const TokenCounts& counts, int64_t position, const uint32_t* allowed = nullptr);

// argmax, ties to the lower index. Errors as above.
int32_t argmax(const float* logits, int64_t vocabulary);

// One block of Philox 4x32-10.
std::array<uint32_t, 4> philox_4x32_10(std::array<uint32_t, 4> counter,
                                       std::array<uint32_t, 2> key);

// Uniform in [0, 1), 53 bits, of (seed, counter).
double philox_uniform(uint64_t seed, uint64_t counter);

// The plain oracle of the truncated, penalised distribution in fp64: probability of every token.
std::vector<double> sampling_distribution_oracle(const float* logits, int64_t vocabulary,
                                                 const SamplingParameters& parameters,
                                                 const TokenCounts& counts);

}  // namespace qnext::ops
