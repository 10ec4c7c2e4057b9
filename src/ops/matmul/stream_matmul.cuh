// What the two kernels of stream_matmul_cuda.h share.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

#include "ops/launch_cuda.cuh"
#include "ops/matmul/packed_tile.cuh"
#include "ops/matmul/stream_matmul_cuda.h"
#include "ops/sm90/small_copies.cuh"

namespace qnext::ops::cuda {

constexpr int run_tiles = 2;  // a run: 128 columns, summed on its own
constexpr int run_columns = run_tiles * static_cast<int>(tile_columns);

constexpr int part_runs = 4;  // a part: 512 columns, whose runs are added up on their own

// A weight and what becomes of its products.
struct StreamedWeight {
  const std::byte* tiles;
  const float* scales;
  void* y;
  int64_t stride;
  int64_t rows;
  int strips;
  int first_strip;  // among those of all products of the launch
  PackedFormat format;
  StreamStore store;
};

// Writes the strips of all products behind each other; returns their number.
int list_products(const StreamProduct* products, int count,
                  StreamedWeight (&list)[most_stream_products]);

// Which of a job's products a strip belongs to.
template <typename Job>
__device__ inline int product_of_strip(const Job& job, int strip) {
  int product = 0;
  while (product + 1 < job.products && strip >= job.product[product + 1].first_strip) ++product;
  return product;
}

// Rows in passes of 16 to 64: stream_matmul_cuda.h for more than 8 rows of bf16. More than 64 rows
// of a large matrix go on to stream_passes.cuh.
void stream_matmul_many(cudaStream_t stream, const StreamInput& input, int64_t rows,
                        const StreamProduct* products, int count);

// Up to four rows, wherever a block's share of the strips is small (stream_row_sm90.cu). False:
// nothing was launched, as the rows or products do not fit.
bool stream_matmul_row(cudaStream_t stream, const StreamInput& input, int64_t rows,
                       const StreamProduct* products, int count);

// The same, where every block has one strip at most of a normed row's products
// (stream_strip_sm90.cu).
bool stream_matmul_strips(cudaStream_t stream, const StreamInput& input, int64_t rows,
                          const StreamProduct* products, int count);

using sm90::Place;

// An arrival that takes place once this thread's cp.async copies have come.
__device__ inline void arrive_behind_copies(sm90::Barrier* barrier) {
  asm volatile(
      "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(sm90::shared_address(barrier))
      : "memory");
}

// What y holds where it is added to, else nothing of importance.
__device__ inline float old_value(const StreamedWeight& weight, int64_t row, int64_t output) {
  return weight.store == StreamStore::add_f32
             ? static_cast<const float*>(weight.y)[row * weight.stride + output]
             : 0.0f;
}
__device__ inline void store_sum(const StreamedWeight& weight, int64_t row, int64_t output,
                                 float sum, float before) {
  const int64_t to = row * weight.stride + output;
  if (weight.store == StreamStore::bf16)
    static_cast<Bf16*>(weight.y)[to] = __bfloat16_as_ushort(__float2bfloat16_rn(sum));
  else if (weight.store == StreamStore::f32)
    static_cast<float*>(weight.y)[to] = sum;
  else
    static_cast<float*>(weight.y)[to] = before + sum;
}

}  // namespace qnext::ops::cuda
