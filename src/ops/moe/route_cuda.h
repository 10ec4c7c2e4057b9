// Routing for the packed experts (packed_experts_cuda.h): moe_cuda.h's route() in less time, from
// and into the places where the experts' kernels look.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace qnext::ops::cuda {

// Device pointers. Slot s < top_k of a row is its s-th most probable expert; slot top_k, where
// `shared`, is the shared expert: id `experts`, weight sigmoid(shared_gate), or 1 where shared_gate
// is null. A dense layer is experts = top_k = 0, shared, no gate.
struct Routing {
  int64_t experts = 0;  // routed ones
  int64_t top_k = 0;
  bool renormalize = true;
  bool shared = false;
  const float* logits = nullptr;  // [rows, logit_stride]
  int64_t logit_stride = 0;
  const float* shared_gate = nullptr;  // [rows, gate_stride]: the first of each
  int64_t gate_stride = 1;
  int32_t* ids = nullptr;     // [rows, slots()], written
  float* weights = nullptr;   // [rows, slots()], written
  uint8_t* chosen = nullptr;  // [experts + shared] or null: becomes 1 for every chosen expert

  constexpr int64_t slots() const { return top_k + (shared ? 1 : 0); }
};

// Top k of each row as in moe.h; a NaN logit counts as the smallest. Launched overlapped.
void route_experts(cudaStream_t stream, const Routing& routing, int64_t rows);

}  // namespace qnext::ops::cuda
