#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/gated_delta/gated_delta.h"

namespace qnext::ops {

namespace {

using Matrix = std::vector<double>;  // row-major, sizes beside it

// One chunk of n tokens from `begin` on, as section "Gated DeltaNet" of docs/model.md writes it.
// Only differences c_i - c_j with i >= j are exponentiated: c falls, so they are <= 0.
class Chunk {
 public:
  Chunk(const DeltaHead& head, int64_t begin, int64_t n)
      : n_(n),
        dk_(head.key_dim),
        dv_(head.value_dim),
        q_(head.q + begin * dk_),
        k_(head.k + begin * dk_),
        v_(head.v + begin * dv_),
        beta_(head.beta + begin),
        c_(static_cast<size_t>(n)) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) c_[static_cast<size_t>(i)] = sum += head.g[begin + i];
  }

  void advance(double* state, double* out) const {
    const Matrix change = changed_values(state);  // V' [n, dv]
    for (int64_t i = 0; i < n_; ++i) {
      double* o = out + i * dv_;
      std::fill_n(o, dv_, 0.0);
      for (int64_t d = 0; d < dk_; ++d) add(o, std::exp(c(i)) * q_[i * dk_ + d], state + d * dv_);
      for (int64_t j = 0; j <= i; ++j)
        add(o, dot(q_ + i * dk_, k_ + j * dk_) * decay(i, j), row(change, j));
    }
    for (int64_t d = 0; d < dk_; ++d) {
      double* s = state + d * dv_;
      for (int64_t e = 0; e < dv_; ++e) s[e] *= std::exp(c(n_ - 1));
      for (int64_t j = 0; j < n_; ++j) add(s, decay(n_ - 1, j) * k_[j * dk_ + d], row(change, j));
    }
  }

 private:
  double c(int64_t i) const { return c_[static_cast<size_t>(i)]; }
  double decay(int64_t i, int64_t j) const { return std::exp(c(i) - c(j)); }
  const double* row(const Matrix& m, int64_t i) const { return m.data() + i * dv_; }
  double dot(const double* x, const double* y) const {
    double sum = 0;
    for (int64_t d = 0; d < dk_; ++d) sum += x[d] * y[d];
    return sum;
  }
  void add(double* y, double factor, const double* x) const {
    for (int64_t e = 0; e < dv_; ++e) y[e] += factor * x[e];
  }

  // V' = A (diag(beta) V - diag(beta exp c) K S), A the inverse of a unit lower triangle: solved
  // row by row.
  Matrix changed_values(const double* state) const {
    Matrix change(static_cast<size_t>(n_ * dv_));
    for (int64_t i = 0; i < n_; ++i) {
      double* r = change.data() + i * dv_;
      for (int64_t e = 0; e < dv_; ++e) r[e] = beta_[i] * v_[i * dv_ + e];
      for (int64_t d = 0; d < dk_; ++d)
        add(r, -beta_[i] * std::exp(c(i)) * k_[i * dk_ + d], state + d * dv_);
      for (int64_t j = 0; j < i; ++j)
        add(r, -beta_[i] * dot(k_ + i * dk_, k_ + j * dk_) * decay(i, j), row(change, j));
    }
    return change;
  }

  int64_t n_;
  int64_t dk_;
  int64_t dv_;
  const double* q_;
  const double* k_;
  const double* v_;
  const double* beta_;
  std::vector<double> c_;
};

}  // namespace

void gated_delta_recurrent_oracle(const DeltaHead& head, double* state, double* out) {
  const int64_t dk = head.key_dim;
  const int64_t dv = head.value_dim;
  for (int64_t t = 0; t < head.tokens; ++t) {
    for (int64_t e = 0; e < dv; ++e) {
      double recalled = 0;
      for (int64_t d = 0; d < dk; ++d) {
        state[d * dv + e] *= std::exp(head.g[t]);
        recalled += head.k[t * dk + d] * state[d * dv + e];
      }
      const double change = head.beta[t] * (head.v[t * dv + e] - recalled);
      double sum = 0;
      for (int64_t d = 0; d < dk; ++d) {
        state[d * dv + e] += head.k[t * dk + d] * change;
        sum += head.q[t * dk + d] * state[d * dv + e];
      }
      out[t * dv + e] = sum;
    }
  }
}

void gated_delta_chunked_oracle(const DeltaHead& head, int64_t chunk, double* state, double* out) {
  for (int64_t begin = 0; begin < head.tokens; begin += chunk)
    Chunk(head, begin, std::min(chunk, head.tokens - begin))
        .advance(state, out + begin * head.value_dim);
}

void l2_normalize_oracle(const double* x, int64_t width, double scale, double* y) {
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
  for (int64_t i = 0; i < width; ++i) y[i] = x[i] / std::sqrt(sum + 1e-6) * scale;
}

}  // namespace qnext::ops
