#include <cmath>

#include "ops/launch_cuda.cuh"
#include "ops/sampling/mask_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = 256;
constexpr int lanes = 32;
// Of a vocabulary of 151,936: 37 words a warp.
constexpr int blocks_per_row = 16;

// A warp takes a word: its lanes' 32 logits lie together.
__global__ void mask_logits_kernel(float* logits, int64_t stride, int64_t vocabulary,
                                   const uint32_t* masks, const int32_t* row_of) {
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int64_t words = mask_words(vocabulary);
  const int64_t masked = blockIdx.x / blocks_per_row;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t warp = (blockIdx.x % blocks_per_row) * (threads / lanes) + threadIdx.x / lanes;
  float* row = logits + row_of[masked] * stride;
  const uint32_t* mask = masks + masked * words;
  for (int64_t word = warp; word < words; word += blocks_per_row * (threads / lanes)) {
    const bool is_allowed = (mask[word] >> lane & 1) != 0;
    const int64_t token = word * lanes + lane;
    if (is_allowed || token >= vocabulary) continue;
    if (!isnan(row[token])) row[token] = -INFINITY;
  }
}

}  // namespace

void mask_logits(cudaStream_t stream, float* logits, int64_t stride, int64_t vocabulary,
                 const uint32_t* masks, const int32_t* row_of, int64_t count) {
  if (count == 0) return;
  launch_overlapped("mask_logits", mask_logits_kernel,
                    static_cast<unsigned>(count * blocks_per_row), threads, 0, stream, logits,
                    stride, vocabulary, masks, row_of);
}

}  // namespace qnext::ops::cuda
