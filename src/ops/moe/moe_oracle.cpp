#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ops/moe/moe.h"

namespace qnext::ops {

void route_oracle(const double* logits, int64_t rows, int64_t experts, int64_t top_k,
                  bool renormalize, int32_t* ids, double* weights) {
  std::vector<int32_t> order(static_cast<size_t>(experts));
  std::vector<double> p(static_cast<size_t>(experts));
  for (int64_t row = 0; row < rows; ++row, logits += experts, ids += top_k, weights += top_k) {
    const double largest = *std::max_element(logits, logits + experts);
    std::transform(logits, logits + experts, p.begin(),
                   [&](double logit) { return std::exp(logit - largest); });
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    std::copy_n(order.begin(), top_k, ids);
    double sum = std::accumulate(p.begin(), p.end(), 0.0);
    if (renormalize) {
      sum = 0;
      for (int64_t slot = 0; slot < top_k; ++slot) sum += p[static_cast<size_t>(ids[slot])];
    }
    for (int64_t slot = 0; slot < top_k; ++slot)
      weights[slot] = p[static_cast<size_t>(ids[slot])] / sum;
  }
}

namespace {

std::vector<double> multiply(const WeightMatrix& weight, const std::vector<double>& x) {
  std::vector<float> row(static_cast<size_t>(weight.columns));
  std::vector<double> y(static_cast<size_t>(weight.rows));
  for (size_t n = 0; n < y.size(); ++n) {
    unpack_row(weight, static_cast<int64_t>(n), row.data());
    for (size_t k = 0; k < row.size(); ++k) y[n] += double{row[k]} * x[k];
  }
  return y;
}

}  // namespace

void gated_experts_oracle(const Activations& x, std::span<const GatedExpert> experts,
                          const int32_t* ids, const double* weights, int64_t slots, double* y) {
  for (int64_t row = 0; row < x.rows; ++row) {
    const float* values = x.values + row * x.stride;
    const std::vector<double> input(values, values + x.columns);
    double* out = y + row * x.columns;
    std::fill_n(out, x.columns, 0.0);
    for (int64_t slot = 0; slot < slots; ++slot) {
      const GatedExpert& expert = experts[static_cast<size_t>(ids[row * slots + slot])];
      std::vector<double> hidden = multiply(expert.gate, input);
      const std::vector<double> up = multiply(expert.up, input);
      for (size_t i = 0; i < hidden.size(); ++i)
        hidden[i] = hidden[i] / (1 + std::exp(-hidden[i])) * up[i];
      const std::vector<double> down = multiply(expert.down, hidden);
      for (size_t n = 0; n < down.size(); ++n) out[n] += weights[row * slots + slot] * down[n];
    }
  }
}

}  // namespace qnext::ops
