// A warp a row; the row's logits are read once, into registers.
#include "base/cuda_error.h"
#include "ops/launch_cuda.cuh"
#include "ops/moe/route_cuda.h"
#include "ops/moe/route_row.cuh"

namespace qnext::ops::cuda {

namespace {

constexpr int warps = 4;

__global__ void __launch_bounds__(warps* warp_lanes)
    route_experts_kernel(Routing routing, int64_t rows, int64_t slots) {
  __shared__ RouteScratch scratch[warps];
  wait_for_earlier_kernels();
  let_next_kernel_start();
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * warps + warp;
  if (row >= rows) return;
  const RouteRule rule = rule_of(routing);
  int32_t* ids = routing.ids + row * slots;
  const float* gate = shared_gate_of(routing, row);
  route_row(rule, routing.logits + row * routing.logit_stride, gate, scratch[warp], ids,
            routing.weights + row * slots);
  __syncwarp();
  if (routing.chosen)
    for (int64_t slot = lane; slot < slots; slot += warp_lanes) routing.chosen[ids[slot]] = 1;
}

}  // namespace

void route_experts(cudaStream_t stream, const Routing& routing, int64_t rows) {
  if (rows == 0) return;
  launch_overlapped("route_experts", route_experts_kernel,
                    dim3(static_cast<unsigned>((rows + warps - 1) / warps)),
                    dim3(warps * warp_lanes), 0, stream, routing, rows, routing.slots());
}

}  // namespace qnext::ops::cuda
