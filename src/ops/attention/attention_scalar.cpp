#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/attention/attention_kernels.h"

namespace qnext::ops {

namespace {

void widen(const void* source, CacheFormat format, int64_t count, int64_t head_dim, int64_t padded,
           float* out) {
  const DType dtype = format == CacheFormat::q8_0   ? DType::q8_0
                      : format == CacheFormat::bf16 ? DType::bf16
                                                    : DType::f32;
  const size_t row_bytes = dtype_bytes(dtype, static_cast<size_t>(head_dim));
  for (int64_t j = 0; j < count; ++j) {
    convert_to_float(dtype, static_cast<const char*>(source) + static_cast<size_t>(j) * row_bytes,
                     out + j * padded, static_cast<size_t>(head_dim));
    std::fill(out + j * padded + head_dim, out + (j + 1) * padded, 0.0f);
  }
}

void narrow(const float* source, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = float_to_bf16(source[i]);
}

void scores(const float* q, int64_t queries, const float* keys, int64_t positions, int64_t padded,
            float scale, float* out, int64_t score_stride, Ahead) {
  for (int64_t m = 0; m < queries; ++m) {
    for (int64_t j = 0; j < positions; ++j) {
      float lanes[4] = {};
      for (int64_t d = 0; d < padded; d += 4)
        for (int64_t lane = 0; lane < 4; ++lane)
          lanes[lane] += q[m * padded + d + lane] * keys[j * padded + d + lane];
      out[m * score_stride + j] = scale * ((lanes[0] + lanes[2]) + (lanes[1] + lanes[3]));
    }
  }
}

// What scores are measured from; infinitely small ones must not make inf - inf.
float reference(float maximum) {
  return maximum == -std::numeric_limits<float>::infinity() ? 0.0f : maximum;
}

void scale_row(float* out, int64_t padded, float factor) {
  for (int64_t d = 0; d < padded; ++d) out[d] *= factor;
}

void soften(float* s, int64_t valid, AttentionState* state, float* out, int64_t padded) {
  float maximum = state->maximum;
  for (int64_t j = 0; j < valid; ++j) maximum = std::max(maximum, s[j]);
  const float base = reference(maximum);
  float sum = 0;
  for (int64_t j = 0; j < attention_block; ++j) {
    s[j] = j < valid ? std::exp(s[j] - base) : 0.0f;
    sum += s[j];
  }
  const float kept = std::exp(state->maximum - base);
  state->maximum = maximum;
  state->sum = state->sum * kept + sum;
  scale_row(out, padded, kept);
}

void add_values(const float* p, int64_t p_stride, int64_t queries, const float* values,
                int64_t positions, int64_t padded, float* out, Ahead) {
  for (int64_t m = 0; m < queries; ++m)
    for (int64_t j = 0; j < positions; ++j)
      for (int64_t d = 0; d < padded; ++d)
        out[m * padded + d] += p[m * p_stride + j] * values[j * padded + d];
}

void merge(const AttentionState* piece, const float* piece_out, AttentionState* whole, float* out,
           int64_t padded) {
  const float maximum = std::max(whole->maximum, piece->maximum);
  const float base = reference(maximum);
  const float kept = std::exp(whole->maximum - base);
  const float added = std::exp(piece->maximum - base);
  whole->maximum = maximum;
  whole->sum = whole->sum * kept + piece->sum * added;
  for (int64_t d = 0; d < padded; ++d) out[d] = out[d] * kept + piece_out[d] * added;
}

void finish(const AttentionState* whole, const float* out, const float* gate, int64_t head_dim,
            float* y) {
  const float factor = 1.0f / whole->sum;
  for (int64_t d = 0; d < head_dim; ++d)
    y[d] = out[d] * factor * (gate == nullptr ? 1.0f : sigmoid(gate[d]));
}

}  // namespace

const AttentionKernels attention_scalar{widen, narrow, scores, soften, add_values, merge, finish};

}  // namespace qnext::ops
