// Scratch memory of one step on the GPU, allocated once for the largest batch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/device_memory.h"
#include "model/config.h"

namespace qnext::backend::cuda {

struct EagerWorkspace {
  EagerWorkspace() = default;
  EagerWorkspace(const Config& config, int64_t rows, bool has_mtp);
  static size_t bytes(const Config& config, int64_t rows, bool has_mtp);

  int64_t rows = 0;
  float* x = nullptr;               // [rows, hidden] residual stream
  float* normed = nullptr;          // [rows, hidden] input of a mixer or mlp
  float* final_hidden = nullptr;    // [rows, hidden] output of the final norm
  float* projected = nullptr;       // [rows, widest projection] qkvz, or q and gate
  float* keys = nullptr;            // [rows, kv_heads * head_dim]
  float* values = nullptr;          // [rows, kv_heads * head_dim]
  float* ba = nullptr;              // [rows, 2 * value_heads] as projected
  float* a = nullptr;               // [rows, value_heads]
  float* b = nullptr;               // [rows, value_heads]
  float* conv_in = nullptr;         // [rows, conv channels]
  float* conv_out = nullptr;        // [rows, conv channels]
  float* z = nullptr;               // [rows, value width]
  float* mixed = nullptr;           // [rows, widest mixer output] before its out projection
  float* cosine = nullptr;          // [rows, rotary_dims / 2]
  float* sine = nullptr;            // [rows, rotary_dims / 2]
  float* router_logits = nullptr;   // [rows, experts]
  float* shared_gate = nullptr;     // [rows]
  int32_t* expert_ids = nullptr;    // [rows, slots]
  float* expert_weights = nullptr;  // [rows, slots]
  std::byte* experts = nullptr;     // of gated_experts()
  uint8_t* chosen = nullptr;        // [layers + 1, experts + 1] by this pass; the MTP head's last
  float* mtp_input = nullptr;       // [rows, 2 * hidden] embedding, hidden
  float* mtp_hidden = nullptr;      // [rows, hidden] output of the MTP head's norm
  float* logits = nullptr;          // [logits_rows, vocabulary]
  int32_t* logits_from = nullptr;   // [logits_rows] their hidden rows

 private:
  DeviceBuffer memory_;
};

}  // namespace qnext::backend::cuda
