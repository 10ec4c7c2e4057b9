#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/causal_conv/causal_conv_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int threads = 128;

// One channel's inputs around one row of one sequence.
struct Channel {
  const float* x = nullptr;  // the sequence's row 0
  int64_t x_stride = 0;
  const float* state = nullptr;  // null: zeros
  int64_t channels = 0;
  int32_t past = 0;  // width - 1

  // The input of row t of the sequence, t >= -past.
  __device__ float at(int32_t t) const {
    if (t >= 0) return x[t * x_stride];
    return state == nullptr ? 0.0f : state[(t + past) * channels];
  }
};

__device__ Channel channel_of(const SequenceRows& sequence, const float* x, int64_t x_stride,
                              const States& states, int64_t channels, int32_t width, int64_t c) {
  Channel channel;
  channel.x = x + sequence.first_row * x_stride + c;
  channel.x_stride = x_stride;
  if (sequence.state_in >= 0) channel.state = states.base + sequence.state_in * states.stride + c;
  channel.channels = channels;
  channel.past = width - 1;
  return channel;
}

// A thread a row and channel: y, and the state after the row unless it replaces the one that other
// rows still read.
__global__ void conv_kernel(Batch batch, const float* x, int64_t x_stride, const float* weight,
                            int64_t channels, int32_t width, States states, float* y,
                            int64_t y_stride) {
  const int64_t c = static_cast<int64_t>(blockIdx.y) * threads + threadIdx.x;
  if (c >= channels) return;
  const auto row = static_cast<int32_t>(blockIdx.x);
  const SequenceRows& sequence = batch.sequence[batch.sequence_of[row]];
  const Channel channel = channel_of(sequence, x, x_stride, states, channels, width, c);
  const int32_t t = row - sequence.first_row;
  const int32_t oldest = t - channel.past;
  float sum = 0;
  for (int32_t j = 0; j < width; ++j)
    sum = fmaf(weight[c * width + j], channel.at(oldest + j), sum);
  y[row * y_stride + c] = silu(sum);

  const int32_t slot = batch.state_out[row];
  if (slot < 0 || slot == sequence.state_in) return;
  float* state = states.base + slot * states.stride + c;
  for (int32_t j = 0; j < channel.past; ++j) state[j * channels] = channel.at(oldest + 1 + j);
}

// A thread a sequence and channel: states that are replaced in place, once nobody reads the old
// ones any more. j ascends, so each value is read before it is overwritten.
__global__ void replace_state_kernel(Batch batch, const float* x, int64_t x_stride,
                                     int64_t channels, int32_t width, States states) {
  const int64_t c = static_cast<int64_t>(blockIdx.y) * threads + threadIdx.x;
  if (c >= channels) return;
  const SequenceRows& sequence = batch.sequence[blockIdx.x];
  const int32_t slot = sequence.state_in;
  if (sequence.rows == 0 || slot < 0 ||
      slot != batch.state_out[sequence.first_row + sequence.rows - 1])
    return;
  const Channel channel = channel_of(sequence, x, x_stride, states, channels, width, c);
  float* state = states.base + slot * states.stride + c;
  for (int32_t j = 0; j < channel.past; ++j)
    state[j * channels] = channel.at(sequence.rows - channel.past + j);
}

}  // namespace

void causal_conv(cudaStream_t stream, const Batch& batch, const float* x, int64_t x_stride,
                 const float* weight, int64_t channels, int64_t width, const States& states,
                 float* y, int64_t y_stride) {
  if (batch.rows == 0) return;
  const auto tiles = static_cast<unsigned>((channels + threads - 1) / threads);
  conv_kernel<<<dim3(static_cast<unsigned>(batch.rows), tiles), threads, 0, stream>>>(
      batch, x, x_stride, weight, channels, static_cast<int32_t>(width), states, y, y_stride);
  check_launch("causal_conv");
  replace_state_kernel<<<dim3(static_cast<unsigned>(batch.sequences), tiles), threads, 0, stream>>>(
      batch, x, x_stride, channels, static_cast<int32_t>(width), states);
  check_launch("causal_conv state");
}

}  // namespace qnext::ops::cuda
