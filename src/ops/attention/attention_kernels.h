// The variants of the inner kernels, one an instruction set; attention.cpp walks the tiles.
// Rows of queries, outputs and widened keys are `padded` floats apart: head_dim rounded up to
// attention_pad, the rest zeros, so that no kernel needs a tail.
#pragma once

#include <stdint.h>

namespace qnext::ops {

constexpr int64_t attention_pad = 16;  // floats in the widest vector

// Scores of a query that one softmax step takes: attention_block, repeated here because files of
// one instruction set cannot include attention.h.
constexpr int64_t attention_scores = 64;

// How a head's row of keys or values lies in the cache: as DType says, which these files cannot
// include. q8_0: blocks of 32 values, an f16 factor and 32 signed bytes; head_dim is a multiple.
enum class CacheFormat { f32, bf16, q8_0 };
constexpr int64_t q8_0_values = 32;
constexpr int64_t q8_0_bytes = 34;

// A softmax in progress over one query's positions so far.
struct AttentionState {
  float maximum;
  float sum;
};

// Memory that is wanted soon: a kernel asks for it bit by bit while it computes.
struct Ahead {
  const char* at;
  int64_t bytes;
};

struct AttentionKernels {
  // `count` positions of head_dim stored values to padded rows, exactly.
  void (*widen)(const void* source, CacheFormat format, int64_t count, int64_t head_dim,
                int64_t padded, float* out);
  // To bf16. Round to nearest even; NaN stays NaN.
  void (*narrow)(const float* source, int64_t count, uint16_t* out);
  // scores[m, j] = scale * q_m . k_j; scores rows are score_stride apart.
  void (*scores)(const float* q, int64_t queries, const float* keys, int64_t positions,
                 int64_t padded, float scale, float* scores, int64_t score_stride, Ahead ahead);
  // The first `valid` of attention_scores scores to probabilities relative to the new maximum, the
  // others to zero; the sum and the output row so far are rescaled.
  void (*soften)(float* scores, int64_t valid, AttentionState* state, float* out, int64_t padded);
  // out_m += sum over j of p[m, j] * v_j, j ascending.
  void (*add_values)(const float* p, int64_t p_stride, int64_t queries, const float* values,
                     int64_t positions, int64_t padded, float* out, Ahead ahead);
  // Adds the piece's softmax to the whole's.
  void (*merge)(const AttentionState* piece, const float* piece_out, AttentionState* whole,
                float* out, int64_t padded);
  // y = out / sum * sigmoid(gate); gate may be null.
  void (*finish)(const AttentionState* whole, const float* out, const float* gate, int64_t head_dim,
                 float* y);
};

extern const AttentionKernels attention_scalar;
extern const AttentionKernels attention_avx2;
extern const AttentionKernels attention_avx512;

}  // namespace qnext::ops
