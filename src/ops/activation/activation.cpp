#include "ops/activation/activation.h"

#include <cmath>

namespace qnext::ops {

namespace {

// Both branches exponentiate a value <= 0, so nothing overflows and 1 + e loses no small e.
template <typename Real>
Real stable_sigmoid(Real x) {
  if (x >= 0) return Real{1} / (Real{1} + std::exp(-x));
  const Real e = std::exp(x);
  return e / (Real{1} + e);
}

template <typename Real>
Real stable_softplus(Real x) {
  return (x > 0 ? x : Real{0}) + std::log1p(std::exp(-std::abs(x)));
}

}  // namespace

float sigmoid(float x) {
  return stable_sigmoid(x);
}
float silu(float x) {
  return x * stable_sigmoid(x);
}
float softplus(float x) {
  return stable_softplus(x);
}
double sigmoid(double x) {
  return stable_sigmoid(x);
}
double silu(double x) {
  return x * stable_sigmoid(x);
}
double softplus(double x) {
  return stable_softplus(x);
}

}  // namespace qnext::ops
