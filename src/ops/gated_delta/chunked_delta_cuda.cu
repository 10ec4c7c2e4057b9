// The prompt form's calls in order, and its last kernel.
#include "base/cuda_error.h"
#include "ops/gated_delta/delta_chunks.cuh"
#include "ops/launch_cuda.cuh"

namespace qnext::ops::cuda {

namespace {

// out = norm(o) * weight * silu(z), o in out's place: value_dim / 8 lanes a row and head, four
// heads a thread, so that enough loads are under way.
constexpr int norm_threads = 256;
constexpr int norm_turns = 4;

template <int value_dim>
__global__ void __launch_bounds__(norm_threads)
    norm_kernel(int items, DeltaSizes sizes, DeltaLayer layer, DeltaRows inputs, Bf16* out,
                int64_t out_stride) {
  constexpr int lanes = value_dim / 8;
  constexpr int at_once = norm_threads / lanes;
  let_next_kernel_start();
  const int column = threadIdx.x % lanes * 8;
  float weight[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) weight[i] = layer.norm_weight[column + i];
  wait_for_earlier_kernels();
  uint4 o[norm_turns], z[norm_turns];
  uint4* place[norm_turns];
#pragma unroll
  for (int turn = 0; turn < norm_turns; ++turn) {
    const int item = (static_cast<int>(blockIdx.x) * norm_turns + turn) * at_once +
                     static_cast<int>(threadIdx.x) / lanes;
    const int64_t row = item / sizes.value_heads;
    const int head = item % sizes.value_heads;
    place[turn] = nullptr;
    o[turn] = z[turn] = {};
    if (item >= items) continue;
    place[turn] = reinterpret_cast<uint4*>(out + row * out_stride + head * value_dim + column);
    o[turn] = *place[turn];
    z[turn] = *reinterpret_cast<const uint4*>(
        inputs.qkvz + row * inputs.qkvz_stride +
        static_cast<int64_t>(head / sizes.group) * sizes.group_width + 2 * sizes.key_dim +
        (sizes.group + head % sizes.group) * value_dim + column);
  }
#pragma unroll
  for (int turn = 0; turn < norm_turns; ++turn) {
    const uint32_t words[4] = {o[turn].x, o[turn].y, o[turn].z, o[turn].w};
    const uint32_t gates[4] = {z[turn].x, z[turn].y, z[turn].z, z[turn].w};
    float sum = 0;
#pragma unroll
    for (uint32_t word : words) {
      const float2 x = widen_pair(word);
      sum = fmaf(x.x, x.x, fmaf(x.y, x.y, sum));
    }
#pragma unroll
    for (int distance = lanes / 2; distance > 0; distance /= 2)
      sum += __shfl_xor_sync(whole_warp, sum, distance);
    const float scale = rsqrtf(fmaf(sum, 1.0f / value_dim, layer.eps));
    uint32_t results[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 x = widen_pair(words[i]), gate = widen_pair(gates[i]);
      results[i] = bf16_pair(x.x * scale * weight[2 * i] * quick_silu(gate.x),
                             x.y * scale * weight[2 * i + 1] * quick_silu(gate.y));
    }
    if (place[turn] != nullptr) *place[turn] = {results[0], results[1], results[2], results[3]};
  }
}

void norm_chunks(cudaStream_t stream, const Batch& batch, const DeltaLayer& layer,
                 const DeltaRows& rows, Bf16* out, int64_t out_stride) {
  const DeltaSizes sizes(layer);
  const auto items = static_cast<int>(batch.rows * sizes.value_heads);
  const int a_block = norm_turns * (norm_threads / (sizes.value_dim / 8));
  launch_overlapped("chunked_delta norm",
                    sizes.value_dim == 128 ? norm_kernel<128> : norm_kernel<64>,
                    dim3(static_cast<unsigned>((items + a_block - 1) / a_block)),
                    dim3(norm_threads), 0, stream, items, sizes, layer, rows, out, out_stride);
}

}  // namespace

bool chunked_delta_takes(const DeltaLayer& layer) {
  const GatedDeltaShape& shape = layer.shape;
  return (shape.key_dim == 64 || shape.key_dim == 128) &&
         (shape.value_dim == 64 || shape.value_dim == 128) && shape.key_heads > 0 &&
         shape.value_heads > 0 && shape.value_heads % shape.key_heads == 0 &&
         layer.group() <= most_group && layer.conv_width >= 1 && layer.conv_width <= most_past + 1;
}

int64_t chunked_delta_workspace(const DeltaLayer& layer, int64_t rows, int64_t sequences) {
  const ChunkedWorkspace sizes(layer, 0, nullptr);
  return most_chunks(rows, sequences) *
         (layer.shape.key_heads * sizes.keys_size +
          layer.shape.value_heads * (sizes.heads_size + sizes.values_size));
}

void chunked_delta(cudaStream_t stream, const Batch& batch, const DeltaLayer& layer,
                   const DeltaRows& rows, const States& conv_states, const DeltaStates& states,
                   Bf16* out, int64_t out_stride, void* workspace) {
  if (!chunked_delta_takes(layer))
    fail_cuda(
        "chunked_delta takes key and value heads 64 or 128 wide, up to four value heads a key head "
        "and convolutions up to 4 wide");
  if (batch.rows == 0 || batch.sequences == 0) return;
  const ChunkedWorkspace places(layer, most_chunks(batch.rows, batch.sequences), workspace);
  prepare_chunks(stream, batch, layer, rows, conv_states, places);
  scan_chunks(stream, batch, layer, rows, conv_states, states, places, out, out_stride);
  norm_chunks(stream, batch, layer, rows, out, out_stride);
}

}  // namespace qnext::ops::cuda
