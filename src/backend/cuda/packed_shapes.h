// Sizes that follow from a config: what the tensor-core path takes, and the workspaces of its
// kernels.
#pragma once

#include <optional>
#include <string>

#include "backend/step.h"
#include "model/config.h"
#include "ops/gated_delta/delta_layer_cuda.h"
#include "ops/matmul/f8_rows_cuda.h"

namespace qnext::backend::cuda {

// Rows of answers that pass through the layers together.
constexpr int64_t most_answer_pass_rows = 256;

// Capabilities::relative_error of the tensor-core path with weights as stored and a bf16 cache.
double rounding_error(const Config& config);

// Why the tensor-core path does not take such a model; empty if it does.
std::optional<std::string> why_not_packed(const Config& config);

// The mixer's sizes; the weights are left null.
ops::cuda::DeltaLayer delta_shape(const Config& config);
// Whether the tensor-core kernels take its linear attention; else the plain ones do the work.
bool has_fast_delta(const Config& config);
// Of routed, shared and dense experts.
int64_t widest_expert(const Config& config);

size_t answer_experts_bytes(const Config& config, int64_t rows);
size_t prompt_experts_bytes(const Config& config, int64_t rows, ops::cuda::Activations activations);
size_t delta_bytes(const Config& config, const Reservation& reserved);
// For answers of sequences of up to `longest` positions.
size_t attention_bytes(const Config& config, int64_t rows, int64_t longest);

}  // namespace qnext::backend::cuda
