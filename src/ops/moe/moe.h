// Sparse mixture of experts: routing, and the gated experts themselves.
//
//   p = softmax(router logits) over all experts; the top k by p (ties: lower index first);
//   renormalised to sum 1 where the config says norm_topk_prob.
//   y += sum over slots s of weight_s * down_e(silu(gate_e x) * up_e x),   e = expert of slot s
//
// The shared expert is one more slot with weight sigmoid(x . shared_expert_gate); a dense SwiGLU
// layer is the case of one expert, one slot, weight 1.
//
// Same bits, whoever else is in the batch: a row's slots are added in slot order
// (sum = fma(weight, down, sum) from 0, then y += sum), whatever the number of rows.
#pragma once

#include <cstdint>
#include <span>

#include "ops/matmul/matmul.h"

namespace qnext::ops {

// Router probabilities of `rows` tokens to expert ids and weights, most probable first.
// logits [rows, experts]; ids and weights [rows, slot_stride], of which the first top_k a row are
// written (the shared expert's slot follows them in the same row).
void route(ThreadPool& pool, const float* logits, int64_t rows, int64_t experts, int64_t top_k,
           bool renormalize, int32_t* ids, float* weights, int64_t slot_stride);
// Same, in fp64 and plain. weights [rows, top_k].
void route_oracle(const double* logits, int64_t rows, int64_t experts, int64_t top_k,
                  bool renormalize, int32_t* ids, double* weights);

// gate, up [width, hidden]; down [hidden, width]. Experts of one layer may differ in width (the
// shared one) and type.
struct GatedExpert {
  WeightMatrix gate;
  WeightMatrix up;
  WeightMatrix down;
};

// Bytes of workspace that gated_experts() needs for so many rows.
size_t gated_experts_workspace(int64_t rows, int64_t slots, int64_t hidden, int64_t largest_width);

// y [x.rows, hidden] += as above. x carries its int8 blocks if any gate or up is quantised.
// ids, weights [x.rows, slots]. Every expert's weights are read from memory once for each 1024
// rows of x, however many chose it; experts that nobody chose are not touched.
void gated_experts(ThreadPool& pool, const Activations& x, std::span<const GatedExpert> experts,
                   const int32_t* ids, const float* weights, int64_t slots, float* y,
                   int64_t y_stride, void* workspace);

// fp64 oracle, plain: y [x.rows, hidden] (overwritten).
void gated_experts_oracle(const Activations& x, std::span<const GatedExpert> experts,
                          const int32_t* ids, const double* weights, int64_t slots, double* y);

}  // namespace qnext::ops
