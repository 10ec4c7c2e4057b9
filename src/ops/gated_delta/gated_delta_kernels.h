// The variants of the column-block kernel, one an instruction set; gated_delta.cpp chooses.
#pragma once

#include <stdint.h>

namespace qnext::ops {

// Columns of the state that one item advances through all rows of its sequence: a slab
// [key_dim, delta_block] of 128 x 32 floats is 16 KiB, half of a usual first-level cache.
constexpr int64_t delta_block = 32;

// `columns` <= delta_block columns of one value head of one sequence.
struct DeltaBlock {
  const float* q = nullptr;  // of row 0; later rows qkv_stride floats further
  const float* k = nullptr;
  const float* v = nullptr;  // at the block's first column
  int64_t qkv_stride = 0;
  const float* decay = nullptr;  // exp(g) of row 0
  const float* beta = nullptr;
  int64_t ab_stride = 0;
  int64_t rows = 0;
  int64_t key_dim = 0;
  int64_t columns = 0;
  const float* state_in = nullptr;    // at the head and first column, rows state_stride apart
  float* const* state_out = nullptr;  // [rows] or null; whole states
  int64_t state_offset = 0;           // of the head and first column in a whole state
  int64_t state_stride = 0;
  float* slab = nullptr;  // [key_dim, delta_block] scratch
  float* out = nullptr;   // at the block's first column
  int64_t out_stride = 0;
};

struct DeltaKernels {
  void (*advance)(const DeltaBlock& block);
  // x = x * rsqrt(sum x^2 + 1e-6) * scale
  void (*l2_normalize)(float* x, int64_t width, float scale);
};

extern const DeltaKernels delta_scalar;
extern const DeltaKernels delta_avx2;
extern const DeltaKernels delta_avx512;

}  // namespace qnext::ops
