// Scratch memory of the tensor-core path, allocated once for the largest pass. Zeroed at first:
// rows of bf16 matrices that feed a product are padded to whole tiles of columns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/device_memory.h"
#include "backend/step.h"
#include "model/config.h"
#include "ops/matmul/f8_rows_cuda.h"
#include "ops/moe/stream_experts_cuda.h"
#include "ops/sampling/sample_cuda.h"

namespace qnext::backend::cuda {

using ops::cuda::Bf16;

constexpr int64_t padded_columns(int64_t columns) {
  return (columns + ops::cuda::tile_columns - 1) / ops::cuda::tile_columns *
         ops::cuda::tile_columns;
}

// Rows of logits at a time: the lm_head is read once for each such group.
constexpr int64_t packed_logits_rows = 256;

// What the plain delta rule works in, where the tensor-core kernels do not take its sizes; fp32.
struct PlainDelta {
  float* qkvz = nullptr;      // [rows, 2 * key width + 2 * value width]
  float* conv_in = nullptr;   // [rows, conv channels]
  float* conv_out = nullptr;  // [rows, conv channels]
  float* z = nullptr;         // [rows, value width]
  float* a = nullptr;         // [rows, value_heads]
  float* b = nullptr;         // [rows, value_heads]
  float* mixed = nullptr;     // [rows, value width]
};

struct PackedWorkspace {
  PackedWorkspace() = default;
  PackedWorkspace(const Config& config, const Reservation& reserved, bool has_mtp,
                  ops::cuda::Activations activations);
  static size_t bytes(const Config& config, const Reservation& reserved, bool has_mtp,
                      ops::cuda::Activations activations);

  int64_t rows = 0;
  float* x = nullptr;      // [rows, hidden] residual stream
  Bf16* normed = nullptr;  // [rows, padded hidden] input of a mixer or mlp
  // Outputs of the final norm: [rows, hidden], and [1, hidden] for a step that runs ahead.
  float* final_hidden[2] = {};
  Bf16* projected = nullptr;        // [rows, projected_stride] qkvz, or q and gate, k, v
  float* ba = nullptr;              // [rows, 2 * value_heads] as projected
  Bf16* queries = nullptr;          // [rows, heads * head_dim] normalised, rotated
  Bf16* mixed = nullptr;            // [rows, mixed_stride] a mixer's output before its projection
  ops::cuda::F8Rows rounded;        // of Activations::f8: what goes into a product, in e4m3
  float* cosine = nullptr;          // [rows, rotary_dims / 2]
  float* sine = nullptr;            // [rows, rotary_dims / 2]
  float* router_logits = nullptr;   // [rows, experts]
  float* shared_gate = nullptr;     // [rows]
  int32_t* expert_ids = nullptr;    // [rows, slots]
  float* expert_weights = nullptr;  // [rows, slots]
  std::byte* experts = nullptr;     // of the experts' kernels
  ops::cuda::ExpertTurns* expert_turns = nullptr;
  std::byte* delta = nullptr;  // of the chunked delta rule
  PlainDelta plain_delta;
  uint8_t* chosen = nullptr;       // [layers + 1, experts + 1] by this pass; the MTP head's last
  Bf16* mtp_input = nullptr;       // [rows, padded 2 * hidden] embedding, hidden
  float* mtp_hidden[2] = {};       // [rows, hidden] outputs of the MTP head, old and new
  Bf16* logits_input = nullptr;    // [packed_logits_rows, padded hidden]
  float* logits = nullptr;         // [packed_logits_rows, vocabulary]
  int32_t* logits_from = nullptr;  // [packed_logits_rows] their hidden rows
  ops::cuda::RowSampling* samplers = nullptr;  // [packed_logits_rows]
  // [packed_logits_rows, or of a step's rows if they are more] tokens
  int32_t* drawn = nullptr;
  uint32_t* masks = nullptr;       // [packed_logits_rows, mask words] of masked rows
  int32_t* masked_rows = nullptr;  // [packed_logits_rows] which rows these are

  int64_t hidden_stride = 0;
  int64_t projected_stride = 0;
  int64_t queries_stride = 0;
  int64_t mixed_stride = 0;
  int64_t mtp_stride = 0;

 private:
  DeviceBuffer memory_;
};

}  // namespace qnext::backend::cuda
