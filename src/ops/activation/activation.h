// Scalar non-linearities. The float versions are accurate to a few ulp and never overflow; the
// kernels' vector versions are held to the same oracle (double libm).
#pragma once

namespace qnext::ops {

float sigmoid(float x);   // 1 / (1 + exp(-x))
float silu(float x);      // x * sigmoid(x)
float softplus(float x);  // log(1 + exp(x)), without overflow
double sigmoid(double x);
double silu(double x);
double softplus(double x);

}  // namespace qnext::ops
