// y[m, n] = sum over k of x[m, k] * w[n, k]: the product behind every projection.
//
// Weights keep the type they were loaded with; activations and sums are fp32.
//   f32, f16, bf16   w widened exactly; sums are fused multiply-adds in fp32.
//   f8_e4m3          w = e4m3 * scale of its 128 x 128 block; each run of 128 columns is summed on
//                    its own, then scaled and added.
//   types in blocks  w = s q + m, as tensor/blocks.h and tensor/super_blocks.h define: integers q,
//   and
//                    for each run of 32 or 16 columns a scale s and in some types a minimum m, in
//                    fp32 (s = d * scale of the run; K-quants: m = -minimum * least of the run).
//                    Activations are rounded to int8 in blocks of 32: x = d_x * q_x with d_x =
//                    max|x| / 127, to nearest; a block with a NaN or an infinity makes its row NaN.
//                    Over the runs in ascending order, with integer sums, which are exact:
//                      acc = fma(float(sum(q q_x)), s * d_x, acc), and where there are minimums
//                      acc = fma(m, d_x * float(sum(q_x)), acc)
//
// Same bits, whoever else is in the batch: y[m, n] depends on row m of x and row n of w alone, and
// is summed in one order that does not depend on the number of rows, threads or the split of work.
// The order may differ between instruction sets (fp32 lanes); for types in blocks it does not.
//
// Aliasing: y overlaps neither x nor w. Shapes are trusted (checked once, at load).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"
#include "tensor/dtype.h"

namespace qnext::ops {

// A matrix [rows, columns] = [outputs, inputs] that somebody else owns.
struct WeightMatrix {
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t columns = 0;
  // f32, f16, bf16, f8_e4m3: row-major, any alignment (tensors lie where the file put them).
  // Types in blocks: panels as pack_weights() writes them, 64-byte aligned; as the source of
  // pack_weights(), row-major blocks of any alignment.
  const void* data = nullptr;
  // f8_e4m3 only: [ceil(rows / 128), ceil(columns / 128)].
  const float* block_scales = nullptr;
};

// Bytes that one pass over the matrix reads.
size_t weight_bytes(const WeightMatrix& weight);

// --- Activations -----------------------------------------------------------------------------

// fp32 rows, with their int8 blocks where a quantised weight will read them. A view: the memory
// belongs to the caller's workspace.
struct Activations {
  const float* values = nullptr;  // [rows, columns], rows `stride` floats apart
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;
  const void* quantized = nullptr;  // as quantize_activations() writes it, or null
};

// Bytes of workspace that quantize_activations() needs for one matrix of this shape.
size_t quantized_activation_bytes(int64_t rows, int64_t columns);

// Fills `workspace` (64-byte aligned) with the int8 blocks of x and returns x with them attached.
Activations quantize_activations(ThreadPool& pool, const Activations& x, void* workspace);

// --- Weights at load -------------------------------------------------------------------------

// Whether a matrix with so many columns can be held in the block format: whole blocks.
bool can_pack(DType format, int64_t columns);

// Bytes of a packed matrix; rows are padded with zeros to whole panels.
size_t packed_bytes(DType format, int64_t rows, int64_t columns);

// Lays `source` (row-major f32, f16, bf16, f8_e4m3 or blocks of any type) out in panels of 16 rows
// for the kernels, in blocks of `format`. Blocks that have the format already stay as they are, but
// for a q8_0 block that holds -128, which no encoder writes and kernels do not take: it is encoded
// anew. Everything else is quantised: to q8_0 and q4_0 exactly as tensor/blocks.h encodes, to other
// formats by the search of tensor/encode_row.h, which takes finite values only and is far slower.
// Single threaded: the loader runs many at once. `packed` is 64-byte aligned and packed_bytes()
// long.
void pack_weights(const WeightMatrix& source, DType format, void* packed);

// One row back as floats, exactly as convert_to_float() gives its blocks: for embeddings, tests and
// error tables.
void unpack_row(const WeightMatrix& weight, int64_t row, float* out);

// --- The product -----------------------------------------------------------------------------

// y rows are `y_stride` floats apart. accumulate: y += the product, one rounding more.
// x.quantized must be set for types in blocks.
void matmul(ThreadPool& pool, const Activations& x, const WeightMatrix& w, float* y,
            int64_t y_stride, bool accumulate = false);

// Several products of the same activations in one region: q, k and v, say. One barrier.
struct MatmulTask {
  const WeightMatrix* weight = nullptr;
  float* y = nullptr;
  int64_t y_stride = 0;
  bool accumulate = false;
};
void matmul_many(ThreadPool& pool, const Activations& x, const MatmulTask* tasks, int task_count);

// The fp64 oracle: the plain double loop over the widened weights and the given fp32 activations
// (not their int8 rounding). y [x.rows, w.rows].
void matmul_oracle(const Activations& x, const WeightMatrix& w, double* y);

}  // namespace qnext::ops
