#include <algorithm>
#include <cmath>

#include "ops/gated_delta/gated_delta_kernels.h"

namespace qnext::ops {

namespace {

// Where a row's state is read or written: a whole state in memory, or the slab.
struct Place {
  float* at = nullptr;
  int64_t stride = 0;
};

void advance_row(const DeltaBlock& block, int64_t t, const float* from, int64_t from_stride,
                 Place to) {
  const float* q = block.q + t * block.qkv_stride;
  const float* k = block.k + t * block.qkv_stride;
  const float* v = block.v + t * block.qkv_stride;
  const float decay = block.decay[t * block.ab_stride];
  const float beta = block.beta[t * block.ab_stride];
  float recalled[delta_block] = {};
  for (int64_t i = 0; i < block.key_dim; ++i)
    for (int64_t c = 0; c < block.columns; ++c) recalled[c] += k[i] * from[i * from_stride + c];
  float change[delta_block];
  for (int64_t c = 0; c < block.columns; ++c) change[c] = beta * (v[c] - decay * recalled[c]);
  float sum[delta_block] = {};
  for (int64_t i = 0; i < block.key_dim; ++i) {
    for (int64_t c = 0; c < block.columns; ++c) {
      const float s = decay * from[i * from_stride + c] + k[i] * change[c];
      to.at[i * to.stride + c] = s;
      sum[c] += q[i] * s;
    }
  }
  std::copy_n(sum, block.columns, block.out + t * block.out_stride);
}

void advance(const DeltaBlock& block) {
  const float* from = block.state_in;
  int64_t from_stride = block.state_stride;
  if (from == nullptr) {
    std::fill_n(block.slab, block.key_dim * delta_block, 0.0f);
    from = block.slab;
    from_stride = delta_block;
  }
  for (int64_t t = 0; t < block.rows; ++t) {
    Place to{block.slab, delta_block};
    if (block.state_out != nullptr && block.state_out[t] != nullptr)
      to = {block.state_out[t] + block.state_offset, block.state_stride};
    advance_row(block, t, from, from_stride, to);
    from = to.at;
    from_stride = to.stride;
  }
}

void l2_normalize(float* x, int64_t width, float scale) {
  float sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
  const float factor = 1.0f / std::sqrt(sum + 1e-6f) * scale;
  for (int64_t i = 0; i < width; ++i) x[i] *= factor;
}

}  // namespace

const DeltaKernels delta_scalar{advance, l2_normalize};

}  // namespace qnext::ops
