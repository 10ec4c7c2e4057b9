#include "ops/rope/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qnext::ops {

namespace {

// The dimension whose wave turns `rotations` times within the original context.
double correction_dimension(double rotations, double theta, int64_t rotary_dims,
                            double original_positions) {
  return static_cast<double>(rotary_dims) *
         std::log(original_positions / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

struct Ramp {
  float low = 0;
  float high = 0;
};

Ramp correction_range(double theta, int64_t rotary_dims, const YarnParameters& yarn) {
  const double positions = yarn.original_max_position_embeddings;
  double low = correction_dimension(yarn.beta_fast, theta, rotary_dims, positions);
  double high = correction_dimension(yarn.beta_slow, theta, rotary_dims, positions);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rotary_dims - 1));
  if (low == high) high += 0.001;  // the published guard against a division by zero
  return {static_cast<float>(low), static_cast<float>(high)};
}

}  // namespace

// Every step is rounded to fp32 as the training code rounds it: at position 10^5 the last bit of a
// frequency is worth 0.006 rad.
RopeTable make_rope_table(double theta, int64_t rotary_dims,
                          const std::optional<YarnParameters>& yarn) {
  RopeTable table;
  table.rotary_dims = rotary_dims;
  if (yarn) {
    const double factor = yarn->factor;
    table.attention_factor = static_cast<float>(
        yarn->attention_factor.value_or(factor <= 1 ? 1.0 : 0.1 * std::log(factor) + 1));
  }
  const Ramp ramp = yarn ? correction_range(theta, rotary_dims, *yarn) : Ramp{};
  for (int64_t i = 0; i < rotary_dims / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rotary_dims);
    const float wavelength = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    float frequency = 1.0f / wavelength;
    if (yarn) {
      const float stretched = 1.0f / (static_cast<float>(yarn->factor) * wavelength);
      const float position = (static_cast<float>(i) - ramp.low) / (ramp.high - ramp.low);
      const float kept = 1.0f - std::clamp(position, 0.0f, 1.0f);
      frequency = stretched * (1.0f - kept) + frequency * kept;
    }
    table.inverse_frequency.push_back(frequency);
  }
  return table;
}

void rope_angles(const RopeTable& table, int64_t position, float* cosine, float* sine) {
  const float at = static_cast<float>(position);
  for (size_t i = 0; i < table.inverse_frequency.size(); ++i) {
    const double angle = static_cast<double>(at * table.inverse_frequency[i]);
    cosine[i] = static_cast<float>(std::cos(angle)) * table.attention_factor;
    sine[i] = static_cast<float>(std::sin(angle)) * table.attention_factor;
  }
}

void rope_row(float* head, const float* cosine, const float* sine, int64_t rotary_dims) {
  const int64_t half = rotary_dims / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float first = head[i];
    const float second = head[i + half];
    head[i] = first * cosine[i] - second * sine[i];
    head[i + half] = second * cosine[i] + first * sine[i];
  }
}

}  // namespace qnext::ops
