// Sparse mixture of experts over many rows (prompt form), on Hopper's tensor cores:
//
//   y[row] += sum over slots s, in order, of weight_s * down_e(silu(gate_e x[row]) * up_e x[row])
//
// e = ids[row, s]. x bf16, sums fp32; silu(gate) * up and each slot's down product are rounded to
// bf16. Activations::f8 (f8 weights only): x and silu(gate) * up are rounded to e4m3 before their
// products (matmul/f8_rows_cuda.h, whose sums are those of prompt_matmul). Every expert's weights
// are read about once for each 192 rows that chose it; experts that no row chose are not touched.
// Within this form a row's bits depend on that row alone.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ops/matmul/f8_rows_cuda.h"
#include "ops/moe/packed_experts_cuda.h"

namespace qnext::ops::cuda {

// Bytes of workspace that prompt_experts() needs: about 2 * rows * slots * (width + hidden).
size_t prompt_experts_bytes(const PackedExperts& experts, int64_t rows, int64_t slots,
                            Activations activations);

// x [rows, hidden], 16-byte aligned, x_stride divisible by 8. ids, weights [rows, slots], each id
// in 0 .. experts - 1. y [rows, hidden] fp32. workspace 256-byte aligned; its content means nothing
// before and after. Scales of f8: as in matmul/prompt_matmul_cuda.h.
void prompt_experts(cudaStream_t stream, const Bf16* x, int64_t x_stride, int64_t rows,
                    const PackedExperts& experts, const int32_t* ids, const float* weights,
                    int64_t slots, Activations activations, float* y, int64_t y_stride,
                    void* workspace);

}  // namespace qnext::ops::cuda
