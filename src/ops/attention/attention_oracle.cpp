#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/attention/attention.h"

namespace qnext::ops {

void attention_oracle(const double* q, const double* keys, const double* values, int64_t positions,
                      int64_t head_dim, double scale, double* out) {
  std::vector<double> p(static_cast<size_t>(positions));
  for (int64_t j = 0; j < positions; ++j) {
    double dot = 0;
    for (int64_t d = 0; d < head_dim; ++d) dot += q[d] * keys[j * head_dim + d];
    p[static_cast<size_t>(j)] = scale * dot;
  }
  const double maximum = *std::max_element(p.begin(), p.end());
  double sum = 0;
  for (double& value : p) sum += value = std::exp(value - maximum);
  std::fill_n(out, head_dim, 0.0);
  for (int64_t j = 0; j < positions; ++j)
    for (int64_t d = 0; d < head_dim; ++d)
      out[d] += p[static_cast<size_t>(j)] / sum * values[j * head_dim + d];
}

}  // namespace qnext::ops
