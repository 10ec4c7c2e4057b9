#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/launch_cuda.cuh"
#include "ops/rope/rope_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int angle_threads = 128;
constexpr int head_warps = 4;

__global__ void rope_angles_kernel(Batch batch, const float* inverse_frequency, int64_t half,
                                   float attention_factor, float* cosine, float* sine) {
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int64_t at = static_cast<int64_t>(blockIdx.x) * angle_threads + threadIdx.x;
  if (at >= batch.rows * half) return;
  const auto row = static_cast<int32_t>(at / half);
  const SequenceRows& sequence = batch.sequence[batch.sequence_of[row]];
  const auto position = static_cast<float>(sequence.first_position + row - sequence.first_row);
  const auto angle = static_cast<double>(position * inverse_frequency[at % half]);
  cosine[at] = static_cast<float>(cos(angle)) * attention_factor;
  sine[at] = static_cast<float>(sin(angle)) * attention_factor;
}

// A warp a head.
__global__ void prepare_heads_kernel(Heads queries, Heads keys, int64_t rows, int64_t width,
                                     float eps, const float* cosine, const float* sine,
                                     int64_t half) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * head_warps + threadIdx.x / warp_lanes;
  const int64_t heads = queries.heads + keys.heads;
  if (item >= rows * heads) return;
  const int64_t row = item / heads;
  const bool is_key = item % heads >= queries.heads;
  const Heads& of = is_key ? keys : queries;
  const int64_t index = is_key ? item % heads - queries.heads : item % heads;
  float* head = of.base + row * of.row_stride + index * of.head_stride;
  const int lane = threadIdx.x % warp_lanes;

  float sum = 0;
  for (int64_t i = lane; i < width; i += warp_lanes) sum = fmaf(head[i], head[i], sum);
  const float scale = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(width) + eps);
  for (int64_t i = lane; i < width; i += warp_lanes)
    head[i] = head[i] * scale * (1.0f + of.norm_weight[i]);
  __syncwarp();  // a pair's two values come from different lanes
  for (int64_t i = lane; i < half; i += warp_lanes) {
    const float first = head[i];
    const float second = head[i + half];
    const float c = cosine[row * half + i];
    const float s = sine[row * half + i];
    head[i] = first * c - second * s;
    head[i + half] = second * c + first * s;
  }
}

}  // namespace

void rope_angles(cudaStream_t stream, const Batch& batch, const float* inverse_frequency,
                 int64_t half, float attention_factor, float* cosine, float* sine) {
  if (batch.rows * half == 0) return;
  const auto blocks =
      static_cast<unsigned>((batch.rows * half + angle_threads - 1) / angle_threads);
  launch_overlapped("rope_angles", rope_angles_kernel, blocks, angle_threads, 0, stream, batch,
                    inverse_frequency, half, attention_factor, cosine, sine);
}

void prepare_heads(cudaStream_t stream, const Heads& queries, const Heads& keys, int64_t rows,
                   int64_t width, float eps, const float* cosine, const float* sine, int64_t half) {
  const int64_t items = rows * (queries.heads + keys.heads);
  if (items == 0) return;
  const auto blocks = static_cast<unsigned>((items + head_warps - 1) / head_warps);
  prepare_heads_kernel<<<blocks, head_warps * warp_lanes, 0, stream>>>(queries, keys, rows, width,
                                                                       eps, cosine, sine, half);
  check_launch("prepare_heads");
}

}  // namespace qnext::ops::cuda
