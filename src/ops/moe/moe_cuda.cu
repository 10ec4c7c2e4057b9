#include <algorithm>
#include <cmath>

#include "base/cuda_error.h"
#include "ops/matmul/warp_dot.cuh"
#include "ops/moe/moe_cuda.h"

namespace qnext::ops::cuda {

namespace {

constexpr int warps = 8;

unsigned blocks_for(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

// --- routing ---------------------------------------------------------------------------------

struct Choice {
  float logit;
  int32_t id;
};

// The order of the slots: larger logits first, the lower index among equals.
__device__ bool comes_before(Choice a, Choice b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// The first choice of the row that comes after `last`.
__device__ Choice next_choice(const float* logits, int64_t experts, Choice last) {
  Choice best{-INFINITY, INT32_MAX};
  for (auto e = static_cast<int32_t>(threadIdx.x % warp_lanes); e < experts; e += warp_lanes) {
    const Choice choice{isnan(logits[e]) ? -INFINITY : logits[e], e};
    if (comes_before(last, choice) && comes_before(choice, best)) best = choice;
  }
#pragma unroll
  for (int distance = warp_lanes / 2; distance > 0; distance /= 2) {
    const Choice other{__shfl_xor_sync(whole_warp, best.logit, distance),
                       __shfl_xor_sync(whole_warp, best.id, distance)};
    if (comes_before(other, best)) best = other;
  }
  return best;
}

// A warp a row.
__global__ void route_kernel(const float* all_logits, int64_t rows, int64_t experts, int64_t top_k,
                             bool renormalize, const float* shared_gate, int32_t* ids,
                             float* weights, int64_t slot_stride, uint8_t* chosen) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / warp_lanes;
  if (row >= rows) return;
  const bool leader = threadIdx.x % warp_lanes == 0;
  const float* logits = all_logits + row * experts;
  ids += row * slot_stride;
  weights += row * slot_stride;

  Choice choice{INFINITY, -1};
  float largest = 0, sum = 0;
  for (int64_t slot = 0; slot < top_k; ++slot) {
    choice = next_choice(logits, experts, choice);
    const float logit = logits[choice.id];
    if (slot == 0) largest = logit;
    // The sum over all experts cancels where the chosen are renormalised.
    const float p = expf(logit - largest);
    if (renormalize) sum += p;
    if (!leader) continue;
    ids[slot] = choice.id;
    weights[slot] = p;
    chosen[choice.id] = 1;
  }
  if (!renormalize) {
    for (int64_t e = threadIdx.x % warp_lanes; e < experts; e += warp_lanes)
      sum += expf(logits[e] - largest);
    sum = warp_sum(sum);
  }
  if (!leader) return;
  for (int64_t slot = 0; slot < top_k; ++slot) weights[slot] /= sum;
  if (!shared_gate) return;
  ids[top_k] = static_cast<int32_t>(experts);
  weights[top_k] = sigmoid(shared_gate[row]);
  chosen[experts] = 1;
}

__global__ void route_to_one_kernel(int64_t rows, int32_t* ids, float* weights, uint8_t* chosen) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  ids[row] = 0;
  weights[row] = 1;
  chosen[0] = 1;
}

// --- experts ---------------------------------------------------------------------------------

// hidden[r, s, j] = silu(gate x)_j * (up x)_j: a warp for each j, a row of the grid for each (r,
// s).
__global__ void gate_up_kernel(const float* x, int64_t x_stride, int64_t pairs,
                               const GatedExpert* experts, const int32_t* ids, int64_t slots,
                               float* hidden, int64_t hidden_stride) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / warp_lanes;
  for (int64_t pair = blockIdx.y; pair < pairs; pair += gridDim.y) {
    const GatedExpert& expert = experts[ids[pair]];
    if (j >= expert.gate.rows) continue;
    const float* row = x + pair / slots * x_stride;
    const float gate = warp_dot(expert.gate, j, row);
    const float up = warp_dot(expert.up, j, row);
    if (threadIdx.x % warp_lanes == 0) hidden[pair * hidden_stride + j] = silu(gate) * up;
  }
}

// y[r, n] += sum over s of weight * (down hidden[r, s])_n: a warp for each n, slots in order.
__global__ void down_kernel(const float* hidden, int64_t hidden_stride, int64_t rows, int64_t width,
                            const GatedExpert* experts, const int32_t* ids, const float* weights,
                            int64_t slots, float* y, int64_t y_stride) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / warp_lanes;
  if (n >= width) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    float sum = 0;
    for (int64_t pair = row * slots; pair < (row + 1) * slots; ++pair) {
      const float down = warp_dot(experts[ids[pair]].down, n, hidden + pair * hidden_stride);
      sum = fmaf(weights[pair], down, sum);
    }
    if (threadIdx.x % warp_lanes == 0) y[row * y_stride + n] += sum;
  }
}

// Rows of `hidden` are aligned for loads of four.
int64_t hidden_stride(int64_t largest_width) {
  return (largest_width + 3) / 4 * 4;
}

}  // namespace

void route(cudaStream_t stream, const float* logits, int64_t rows, int64_t experts, int64_t top_k,
           bool renormalize, const float* shared_gate, int32_t* ids, float* weights,
           int64_t slot_stride, uint8_t* chosen) {
  if (rows == 0) return;
  route_kernel<<<blocks_for(rows, warps), warps * warp_lanes, 0, stream>>>(
      logits, rows, experts, top_k, renormalize, shared_gate, ids, weights, slot_stride, chosen);
  check_launch("route");
}

void route_to_one(cudaStream_t stream, int64_t rows, int32_t* ids, float* weights,
                  uint8_t* chosen) {
  if (rows == 0) return;
  route_to_one_kernel<<<blocks_for(rows, 256), 256, 0, stream>>>(rows, ids, weights, chosen);
  check_launch("route_to_one");
}

size_t gated_experts_workspace(int64_t rows, int64_t slots, int64_t largest_width) {
  return static_cast<size_t>(rows * slots * hidden_stride(largest_width)) * sizeof(float);
}

void gated_experts(cudaStream_t stream, const float* x, int64_t x_stride, int64_t rows,
                   int64_t hidden, const GatedExpert* experts, int64_t largest_width,
                   const int32_t* ids, const float* weights, int64_t slots, float* y,
                   int64_t y_stride, void* workspace) {
  if (rows == 0) return;
  if (hidden % 4 == 0 && x_stride % 4 != 0) check_cuda(cudaErrorMisalignedAddress, "gated_experts");
  constexpr int64_t grid_limit = 65535;
  const int64_t pairs = rows * slots, stride = hidden_stride(largest_width);
  auto* between = static_cast<float*>(workspace);
  const dim3 wide(blocks_for(largest_width, warps),
                  static_cast<unsigned>(std::min(pairs, grid_limit)));
  gate_up_kernel<<<wide, warps * warp_lanes, 0, stream>>>(x, x_stride, pairs, experts, ids, slots,
                                                          between, stride);
  check_launch("gated_experts gate and up");
  const dim3 narrow(blocks_for(hidden, warps), static_cast<unsigned>(std::min(rows, grid_limit)));
  down_kernel<<<narrow, warps * warp_lanes, 0, stream>>>(between, stride, rows, hidden, experts,
                                                         ids, weights, slots, y, y_stride);
  check_launch("gated_experts down");
}

}  // namespace qnext::ops::cuda
