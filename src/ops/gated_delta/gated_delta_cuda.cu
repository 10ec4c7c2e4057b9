#include "base/cuda_error.h"
#include "ops/activation/activation_device.h"
#include "ops/gated_delta/gated_delta_cuda.h"

namespace qnext::ops::cuda {

namespace {

// A block holds `columns` columns of one head's S in registers, each shared by `parts` threads:
// thread `part` has the rows d = i * parts + part. Eight neighbouring columns of one warp read a
// whole 32-byte sector of the state.
constexpr int columns = 32;
constexpr int parts = 4;
constexpr int threads = columns * parts;
constexpr int warp_columns = warp_lanes / parts;
constexpr int prepare_warps = 4;
constexpr int ungroup_threads = 256;

__device__ void l2_normalize(float* x, int64_t width, float scale) {
  const int lane = threadIdx.x % warp_lanes;
  float sum = 0;
  for (int64_t i = lane; i < width; i += warp_lanes) sum = fmaf(x[i], x[i], sum);
  const float factor = 1.0f / sqrtf(warp_sum(sum) + 1e-6f) * scale;
  for (int64_t i = lane; i < width; i += warp_lanes) x[i] *= factor;
}

// A warp a row and key head: its q and k, and the gates of its value heads.
__global__ void prepare_kernel(int64_t rows, GatedDeltaShape shape, GatedDeltaInputs inputs) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * prepare_warps + threadIdx.x / warp_lanes;
  if (item >= rows * shape.key_heads) return;
  const int64_t row = item / shape.key_heads;
  const int64_t key_head = item % shape.key_heads;
  float* q = inputs.qkv + row * inputs.qkv_stride + key_head * shape.key_dim;
  l2_normalize(q, shape.key_dim, 1.0f / sqrtf(static_cast<float>(shape.key_dim)));
  l2_normalize(q + shape.key_heads * shape.key_dim, shape.key_dim, 1.0f);
  const int64_t group = shape.value_heads / shape.key_heads;
  for (int64_t i = threadIdx.x % warp_lanes; i < group; i += warp_lanes) {
    const int64_t head = key_head * group + i;
    float& a = inputs.a[row * inputs.ab_stride + head];
    float& b = inputs.b[row * inputs.ab_stride + head];
    a = expf(-expf(inputs.a_log[head]) * softplus(a + inputs.dt_bias[head]));
    b = sigmoid(b);
  }
}

// What one thread fetches of a row, ahead of its use.
template <int loads>
struct Row {
  float q[loads];
  float k[loads];
  float v;
  float decay;
  float beta;
};

// The sum over a column's parts, in every one of them.
__device__ float sum_parts(float x) {
  for (int distance = warp_columns; distance < warp_lanes; distance *= 2)
    x += __shfl_xor_sync(whole_warp, x, distance);
  return x;
}

// Block (column block, value head, sequence). key_dim <= parts * depth; rows beyond it are zeros.
template <int depth>
__global__ void advance_kernel(Batch batch, GatedDeltaShape shape, GatedDeltaInputs inputs,
                               States states, float* out, int64_t out_stride) {
  constexpr int padded = parts * depth;
  constexpr int loads = (padded + threads - 1) / threads;
  __shared__ float q_shared[2][loads * threads];
  __shared__ float k_shared[2][loads * threads];
  const SequenceRows sequence = batch.sequence[blockIdx.z];
  const int64_t head = blockIdx.y;
  const int lane = threadIdx.x % warp_lanes;
  const int part = lane / warp_columns;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * columns +
                         threadIdx.x / warp_lanes * warp_columns + lane % warp_columns;
  const bool inside = column < shape.value_dim;
  const int64_t key_head = head / (shape.value_heads / shape.key_heads);
  const int64_t key_width = shape.key_heads * shape.key_dim;
  const int64_t in_state = head * shape.key_dim * shape.value_dim + column;

  float s[depth];
#pragma unroll
  for (int i = 0; i < depth; ++i) {
    const int64_t d = i * parts + part;
    const bool stored = sequence.state_in >= 0 && inside && d < shape.key_dim;
    s[i] = stored ? states.base[sequence.state_in * states.stride + in_state + d * shape.value_dim]
                  : 0.0f;
  }

  const auto fetch = [&](int64_t row) {
    Row<loads> fetched;
    const float* qkv = inputs.qkv + row * inputs.qkv_stride;
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      const int64_t d = i * threads + threadIdx.x;
      const float* q = qkv + key_head * shape.key_dim + d;
      fetched.q[i] = d < shape.key_dim ? q[0] : 0.0f;
      fetched.k[i] = d < shape.key_dim ? q[key_width] : 0.0f;
    }
    fetched.v = inside ? qkv[2 * key_width + head * shape.value_dim + column] : 0.0f;
    fetched.decay = inputs.a[row * inputs.ab_stride + head];
    fetched.beta = inputs.b[row * inputs.ab_stride + head];
    return fetched;
  };

  Row<loads> next{};
  if (sequence.rows > 0) next = fetch(sequence.first_row);
  for (int32_t t = 0; t < sequence.rows; ++t) {
    const int64_t row = sequence.first_row + t;
    const Row<loads> now = next;
    float* q = q_shared[t % 2];
    float* k = k_shared[t % 2];
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      q[i * threads + threadIdx.x] = now.q[i];
      k[i * threads + threadIdx.x] = now.k[i];
    }
    // One barrier a row is enough: whoever passes it has finished the row that used this half
    // before.
    __syncthreads();
    if (t + 1 < sequence.rows) next = fetch(row + 1);

    float recalled = 0;
#pragma unroll
    for (int i = 0; i < depth; ++i) recalled = fmaf(k[i * parts + part], s[i], recalled);
    const float change = now.beta * (now.v - now.decay * sum_parts(recalled));
    float sum = 0;
#pragma unroll
    for (int i = 0; i < depth; ++i) {
      s[i] = fmaf(k[i * parts + part], change, now.decay * s[i]);
      sum = fmaf(q[i * parts + part], s[i], sum);
    }
    sum = sum_parts(sum);
    if (inside && part == 0) out[row * out_stride + head * shape.value_dim + column] = sum;

    const int32_t slot = batch.state_out[row];
    if (slot < 0 || !inside) continue;
    float* state = states.base + slot * states.stride + in_state;
#pragma unroll
    for (int i = 0; i < depth; ++i) {
      const int64_t d = i * parts + part;
      if (d < shape.key_dim) state[d * shape.value_dim] = s[i];
    }
  }
}

// A block a row: reads in order, writes each value to its place.
__global__ void ungroup_kernel(GatedDeltaShape shape, const float* qkvz, const float* ba,
                               float* conv_in, float* z, float* a, float* b) {
  const int64_t row = blockIdx.x;
  const int64_t groups = shape.key_heads;
  const int64_t heads = shape.value_heads / groups;
  const int64_t dk = shape.key_dim;
  const int64_t values = heads * shape.value_dim;
  const int64_t group_width = 2 * dk + 2 * values;
  float* conv = conv_in + row * groups * (2 * dk + values);
  for (int64_t i = threadIdx.x; i < groups * group_width; i += ungroup_threads) {
    const int64_t g = i / group_width;
    const int64_t at = i % group_width;
    const float value = qkvz[row * groups * group_width + i];
    if (at < dk)
      conv[g * dk + at] = value;
    else if (at < 2 * dk)
      conv[groups * dk + g * dk + at - dk] = value;
    else if (at < 2 * dk + values)
      conv[2 * groups * dk + g * values + at - 2 * dk] = value;
    else
      z[(row * groups + g) * values + at - 2 * dk - values] = value;
  }
  for (int64_t i = threadIdx.x; i < groups * 2 * heads; i += ungroup_threads) {
    const int64_t at = i % (2 * heads);
    float* to = at < heads ? b : a;
    to[(row * groups + i / (2 * heads)) * heads + at % heads] = ba[row * groups * 2 * heads + i];
  }
}

}  // namespace

void gated_delta(cudaStream_t stream, const Batch& batch, const GatedDeltaShape& shape,
                 const GatedDeltaInputs& inputs, const States& states, float* out,
                 int64_t out_stride) {
  if (batch.rows == 0) return;
  const int64_t items = batch.rows * shape.key_heads;
  const auto blocks = static_cast<unsigned>((items + prepare_warps - 1) / prepare_warps);
  prepare_kernel<<<blocks, prepare_warps * warp_lanes, 0, stream>>>(batch.rows, shape, inputs);
  check_launch("gated_delta gates");

  const dim3 grid(static_cast<unsigned>((shape.value_dim + columns - 1) / columns),
                  static_cast<unsigned>(shape.value_heads), static_cast<unsigned>(batch.sequences));
  // The depth follows from the model alone, so a row's sums do not depend on the batch.
  const auto advance = shape.key_dim <= 8 * parts    ? advance_kernel<8>
                       : shape.key_dim <= 16 * parts ? advance_kernel<16>
                       : shape.key_dim <= 32 * parts ? advance_kernel<32>
                                                     : advance_kernel<64>;
  if (shape.key_dim > 64 * parts)
    fail_cuda("the CUDA backend has no gated delta rule for key heads wider than 256");
  advance<<<grid, threads, 0, stream>>>(batch, shape, inputs, states, out, out_stride);
  check_launch("gated_delta");
}

void ungroup_projections(cudaStream_t stream, const GatedDeltaShape& shape, int64_t rows,
                         const float* qkvz, const float* ba, float* conv_in, float* z, float* a,
                         float* b) {
  if (rows == 0) return;
  ungroup_kernel<<<static_cast<unsigned>(rows), ungroup_threads, 0, stream>>>(shape, qkvz, ba,
                                                                              conv_in, z, a, b);
  check_launch("ungroup_projections");
}

}  // namespace qnext::ops::cuda
