// Rotary position embedding (Su et al. 2021), half-split pairing, on the first rotary_dims of a
// head; YaRN (Peng et al. 2023) stretches it over longer contexts.
//
//   pair i: (x[i], x[i + half]) turned by the angle position * inverse_frequency[i], half =
//   rotary_dims / 2; cos and sin are multiplied by attention_factor.
//
// Angles are formed in fp32, as every implementation of this family does: at positions of 10^5 a
// more exact product would turn heads by other angles than those the weights were trained with.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace qnext::ops {

struct YarnParameters {
  double factor = 1;
  double original_max_position_embeddings = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  std::optional<double> attention_factor = {};  // default 0.1 ln(factor) + 1
  bool truncate = true;                         // round the correction range to whole dimensions
};

struct RopeTable {
  int64_t rotary_dims = 0;
  float attention_factor = 1;
  std::vector<float> inverse_frequency;  // [rotary_dims / 2]
};

// inverse_frequency[i] = theta^(-2i / rotary_dims), under YaRN blended with the same / factor.
RopeTable make_rope_table(double theta, int64_t rotary_dims,
                          const std::optional<YarnParameters>& yarn);

// cos, sin [rotary_dims / 2] of one position.
void rope_angles(const RopeTable& table, int64_t position, float* cosine, float* sine);

// Turns one head in place.
void rope_row(float* head, const float* cosine, const float* sine, int64_t rotary_dims);
void rope_oracle(double* head, const double* cosine, const double* sine, int64_t rotary_dims);

}  // namespace qnext::ops
