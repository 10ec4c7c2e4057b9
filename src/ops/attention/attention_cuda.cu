#include <cuda_bf16.h>

#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/attention/attention_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = 256;
constexpr int warps = threads / warp_lanes;
constexpr int widest_head = 1024;
constexpr int block = static_cast<int>(attention_block);
static_assert(block == 2 * warp_lanes);  // two scores a lane

// One layer's cache as a kernel sees it.
template <typename Stored>
struct Cache {
  char* base;
  int64_t page_stride_bytes;
  AttentionShape shape;
  int page_shift;  // log2(page_tokens)

  // Key head kv_head at one position of a sequence; its value lies values_behind() further.
  __device__ Stored* key(const Batch& batch, const SequenceRows& sequence, int64_t position,
                         int64_t kv_head) const {
    const int32_t page = batch.pages[sequence.first_page + (position >> page_shift)];
    const int64_t slot = position & (shape.page_tokens - 1);
    return reinterpret_cast<Stored*>(base + page * page_stride_bytes) +
           (kv_head * shape.page_tokens + slot) * shape.head_dim;
  }
  __device__ int64_t values_behind() const {
    return shape.kv_heads * shape.page_tokens * shape.head_dim;
  }
};

__device__ int64_t position_of(const SequenceRows& sequence, int64_t row) {
  return sequence.first_position + row - sequence.first_row;
}

// A block a row.
template <typename Stored>
__global__ void kv_write_kernel(Batch batch, Cache<Stored> cache, const float* keys,
                                const float* values, int64_t row_stride) {
  const int64_t row = blockIdx.x;
  const SequenceRows& sequence = batch.sequence[batch.sequence_of[row]];
  const int64_t position = position_of(sequence, row);
  const int64_t dim = cache.shape.head_dim;
  for (int64_t i = threadIdx.x; i < cache.shape.kv_heads * dim; i += threads) {
    Stored* to = cache.key(batch, sequence, position, i / dim) + i % dim;
    *to = static_cast<Stored>(keys[row * row_stride + i]);
    to[cache.values_behind()] = static_cast<Stored>(values[row * row_stride + i]);
  }
}

// Running softmax of one query, in every thread alike.
struct Softmax {
  float maximum = -INFINITY;
  float sum = 0;

  // Takes a block's scores, of which the first `valid` count; p gets exp(score - maximum), the
  // result is what earlier sums and outputs must be multiplied by. Every warp calls it with the
  // same scores; one of them stores p.
  __device__ float take(const float* scores, int valid, float* p, bool store) {
    const int lane = threadIdx.x % warp_lanes;
    const float first = lane < valid ? scores[lane] : -INFINITY;
    const float second = lane + warp_lanes < valid ? scores[lane + warp_lanes] : -INFINITY;
    const float highest = fmaxf(maximum, warp_maximum(fmaxf(first, second)));
    const float base = highest == -INFINITY ? 0.0f : highest;  // no inf - inf
    const float p_first = expf(first - base);
    const float p_second = expf(second - base);
    const float kept = expf(maximum - base);
    maximum = highest;
    sum = fmaf(sum, kept, warp_sum(p_first + p_second));
    if (store) {
      p[lane] = p_first;
      p[lane + warp_lanes] = p_second;
    }
    return kept;
  }
};

// A block a row and query head. Its warps share out the positions of a block for the scores, its
// threads the dimensions for the values.
template <typename Stored>
__global__ void attention_kernel(Batch batch, Cache<Stored> cache, AttentionInputs inputs,
                                 float* out, int64_t out_stride) {
  constexpr int most_dims = widest_head / threads;
  __shared__ float q[widest_head];
  __shared__ const Stored* keys[2][block];  // by turns: a slow warp may still read the last block's
  __shared__ float scores[block];
  __shared__ float p[block];
  const int64_t heads = cache.shape.query_heads;
  const int64_t row = blockIdx.x / heads;
  const int64_t head = blockIdx.x % heads;
  const int64_t kv_head = head / (heads / cache.shape.kv_heads);
  const auto dim = static_cast<int>(cache.shape.head_dim);
  const SequenceRows& sequence = batch.sequence[batch.sequence_of[row]];
  const int64_t positions = position_of(sequence, row) + 1;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % warp_lanes;
  const int warp = thread / warp_lanes;

  const float* query = inputs.q + row * inputs.q_stride + head * inputs.q_head_stride;
  for (int d = thread; d < dim; d += threads) q[d] = query[d];
  Softmax softmax;
  float sums[most_dims] = {};
  for (int64_t begin = 0; begin < positions; begin += block) {
    const int valid = static_cast<int>(min(static_cast<int64_t>(block), positions - begin));
    const Stored** key = keys[begin / block % 2];
    if (thread < valid) key[thread] = cache.key(batch, sequence, begin + thread, kv_head);
    __syncthreads();
    for (int j = warp; j < valid; j += warps) {
      float dot = 0;
      for (int d = lane; d < dim; d += warp_lanes)
        dot = fmaf(q[d], static_cast<float>(key[j][d]), dot);
      dot = warp_sum(dot);
      if (lane == 0) scores[j] = inputs.scale * dot;
    }
    __syncthreads();
    const float kept = softmax.take(scores, valid, p, warp == 0);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < most_dims; ++i) {
      const int d = i * threads + thread;
      if (d >= dim) break;
      float sum = sums[i] * kept;
      const int64_t offset = cache.values_behind() + d;
      for (int j = 0; j < valid; ++j) sum = fmaf(p[j], static_cast<float>(key[j][offset]), sum);
      sums[i] = sum;
    }
  }

  const float factor = 1.0f / softmax.sum;
  const float* gate = inputs.gate == nullptr
                          ? nullptr
                          : inputs.gate + row * inputs.gate_stride + head * inputs.gate_head_stride;
#pragma unroll
  for (int i = 0; i < most_dims; ++i) {
    const int d = i * threads + thread;
    if (d >= dim) break;
    out[row * out_stride + head * dim + d] =
        sums[i] * factor * (gate == nullptr ? 1.0f : sigmoid(gate[d]));
  }
}

template <typename Stored>
Cache<Stored> cache_of(const AttentionShape& shape, const KvCache& cache) {
  return {static_cast<char*>(cache.base), cache.page_stride_bytes, shape,
          __builtin_ctzll(static_cast<unsigned long long>(shape.page_tokens))};
}

void check_dtype(const KvCache& cache) {
  if (cache.dtype != DType::f32 && cache.dtype != DType::bf16)
    fail_cuda("the CUDA backend keeps its KV cache in F32 or BF16");
}

}  // namespace

void kv_write(cudaStream_t stream, const Batch& batch, const AttentionShape& shape,
              const KvCache& cache, const float* keys, const float* values, int64_t row_stride) {
  check_dtype(cache);
  if (batch.rows == 0) return;
  const auto blocks = static_cast<unsigned>(batch.rows);
  if (cache.dtype == DType::f32)
    kv_write_kernel<<<blocks, threads, 0, stream>>>(batch, cache_of<float>(shape, cache), keys,
                                                    values, row_stride);
  else
    kv_write_kernel<<<blocks, threads, 0, stream>>>(batch, cache_of<__nv_bfloat16>(shape, cache),
                                                    keys, values, row_stride);
  check_launch("kv_write");
}

void attention(cudaStream_t stream, const Batch& batch, const AttentionShape& shape,
               const KvCache& cache, const AttentionInputs& inputs, float* out,
               int64_t out_stride) {
  check_dtype(cache);
  if (shape.head_dim > widest_head)
    fail_cuda("the CUDA backend has no attention for heads wider than 1024");
  if (batch.rows == 0) return;
  const auto blocks = static_cast<unsigned>(batch.rows * shape.query_heads);
  if (cache.dtype == DType::f32)
    attention_kernel<<<blocks, threads, 0, stream>>>(batch, cache_of<float>(shape, cache), inputs,
                                                     out, out_stride);
  else
    attention_kernel<<<blocks, threads, 0, stream>>>(batch, cache_of<__nv_bfloat16>(shape, cache),
                                                     inputs, out, out_stride);
  check_launch("attention");
}

}  // namespace qnext::ops::cuda
