// The gated delta rule (Yang, Kautz & Hatamizadeh 2024, "Gated Delta Networks").
//
// Per value head, with q and k of its key head (value head h uses key head h / (value_heads /
// key_heads)), both l2-normalised (x * rsqrt(sum x^2 + 1e-6)), q then times key_dim^-0.5:
//   beta = sigmoid(b),  g = -exp(A_log) * softplus(a + dt_bias)
//   S = S * exp(g);  S = S + k (x) (beta * (v - k^T S));  o = q^T S
// The state S [key_dim, value_dim] is fp32.
//
// The CPU runs the recurrent form for prompts too. Over one chunk of 64 tokens the chunked form
// takes about 91 k multiply-adds a token at 128 x 128, the recurrent one 65 k with a block of
// columns of S held in L1: on a CPU, which has no matrix unit to feed, the recurrent form is both
// cheaper and exactly independent of how a prompt was split. The chunked oracle below is the
// contract that a GPU kernel is judged by.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"

namespace qnext::ops {

struct GatedDeltaShape {
  int64_t key_heads = 0;
  int64_t value_heads = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;
};

// Rows of one sequence within a batch, in time order.
struct DeltaSequence {
  int64_t first_row = 0;
  int64_t rows = 0;
  const float* state_in = nullptr;  // [value_heads, key_dim, value_dim]; null: zeros
  // [rows] pointers: where the state after each row goes, same shape; null: not kept.
  // The last one may be state_in itself; no other overlap.
  float* const* state_out = nullptr;
};

// Per row: qkv [key_heads * key_dim | key_heads * key_dim | value_heads * value_dim] = q, k, v as
// they leave the convolution (not yet normalised); a, b [value_heads]. a_log, dt_bias
// [value_heads]. out [all rows, value_heads * value_dim]. Strides in floats.
// qkv, a and b are scratch as well: q and k are normalised in place, a becomes exp(g), b beta.
struct GatedDeltaInputs {
  float* qkv = nullptr;
  int64_t qkv_stride = 0;
  float* a = nullptr;
  float* b = nullptr;
  int64_t ab_stride = 0;
  const float* a_log = nullptr;
  const float* dt_bias = nullptr;
};
// A row's bits depend on its sequence's earlier rows and state alone. out overlaps no input.
void gated_delta(ThreadPool& pool, const GatedDeltaShape& shape, const GatedDeltaInputs& inputs,
                 std::span<const DeltaSequence> sequences, float* out, int64_t out_stride);

// fp64 oracles of one value head over `tokens` rows, from normalised and scaled q and k
// [tokens, key_dim], v [tokens, value_dim], g and beta [tokens]. The state is advanced.
struct DeltaHead {
  const double* q = nullptr;
  const double* k = nullptr;
  const double* v = nullptr;
  const double* g = nullptr;
  const double* beta = nullptr;
  int64_t tokens = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;
};
void gated_delta_recurrent_oracle(const DeltaHead& head, double* state, double* out);
// The chunked form, chunks of `chunk` tokens from the first row on (docs/model.md).
void gated_delta_chunked_oracle(const DeltaHead& head, int64_t chunk, double* state, double* out);
// x * rsqrt(sum x^2 + 1e-6) * scale
void l2_normalize_oracle(const double* x, int64_t width, double scale, double* y);

}  // namespace qnext::ops
