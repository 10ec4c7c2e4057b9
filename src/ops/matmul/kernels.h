// The kernels behind matmul.h, one set for each instruction set. No inline functions here: the
// files that include this header are compiled with different flags.
#pragma once

#include <stdint.h>

#include "ops/matmul/layout.h"

namespace qnext::ops {

// Outputs [begin, end) of one matrix for some rows of x. Rows are given one by one, so that a
// mixture of experts can gather and scatter.
struct MatmulTile {
  const void* weights;        // as WeightMatrix::data
  const float* block_scales;  // as WeightMatrix::block_scales
  int64_t columns;
  int64_t begin;  // a multiple of 16 for types in blocks
  int64_t end;
  int64_t rows;
  const void* const* x;  // [rows] float rows; for types in blocks int8 rows (layout.h)
  float* const* y;       // [rows] where output `begin` goes
  bool accumulate;
};
using TileKernel = void (*)(const MatmulTile& tile);

// Blocks of 32 floats to the int8 form of layout.h.
using QuantizeKernel = void (*)(const float* x, int64_t blocks, layout::ActivationBlock* out);

// What pack kernels encode to.
enum class Encoded { q8_0, q4_0 };

// 16 rows of weights, or the last few, to one panel of q4_0 or q8_0 (layout.h).
struct PackTask {
  const void* source;   // [rows, columns], row-major
  const float* scales;  // f8_e4m3: of each run of 128 columns; 16 rows never straddle two
  int64_t rows;         // 1 .. 16; the rest of the panel is zeros
  int64_t columns;
  Encoded format;
  void* panel;
};
using PackKernel = void (*)(const PackTask& task);

#define QNEXT_MATMUL_KERNELS                                                   \
  void multiply_f32(const MatmulTile& tile);                                   \
  void multiply_f16(const MatmulTile& tile);                                   \
  void multiply_bf16(const MatmulTile& tile);                                  \
  void multiply_f8_e4m3(const MatmulTile& tile);                               \
  void multiply_q8_0(const MatmulTile& tile);                                  \
  void multiply_q4_0(const MatmulTile& tile);                                  \
  void multiply_q4_1(const MatmulTile& tile);                                  \
  void multiply_q5_0(const MatmulTile& tile);                                  \
  void multiply_q5_1(const MatmulTile& tile);                                  \
  void multiply_iq4_nl(const MatmulTile& tile);                                \
  void multiply_q2_k(const MatmulTile& tile);                                  \
  void multiply_q3_k(const MatmulTile& tile);                                  \
  void multiply_q4_k(const MatmulTile& tile);                                  \
  void multiply_q5_k(const MatmulTile& tile);                                  \
  void multiply_q6_k(const MatmulTile& tile);                                  \
  void multiply_iq4_xs(const MatmulTile& tile);                                \
  void quantize(const float* x, int64_t blocks, layout::ActivationBlock* out); \
  void pack_f32(const PackTask& task);                                         \
  void pack_f16(const PackTask& task);                                         \
  void pack_bf16(const PackTask& task);                                        \
  void pack_f8_e4m3(const PackTask& task);

namespace scalar {
QNEXT_MATMUL_KERNELS
}
namespace avx2 {
QNEXT_MATMUL_KERNELS
}
namespace avx512 {
QNEXT_MATMUL_KERNELS
}
#undef QNEXT_MATMUL_KERNELS

}  // namespace qnext::ops
