// One NVIDIA GPU behind backend/step.h, in two ways. `eager`: fp32 activations and sums, weights in
// the type that is stored, kernel after kernel, tokens drawn on the host: what the other is judged
// by. `graph`: tensor cores over packed weights, bf16 activations, captured graphs, tokens drawn on
// the GPU.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "backend/step.h"
#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "tensor/dtype.h"

namespace qnext::backend {

struct CudaOptions {
  int threads = 0;  // that read and check weights, and draw; 0: one for each core
  // Hold the matrices as q4_0 or f8_e4m3, quantised at load. None: in the type that is stored.
  std::optional<DType> quantize = {};
  DType kv_dtype = DType::f32;     // f32 (bf16 on the path graph), bf16 or f8_e4m3
  DType state_dtype = DType::f32;  // S of the Gated DeltaNet layers: f32 or bf16
  // What rows of prompts are rounded to before products with f8 weights: bf16 or, on the path
  // graph, f8_e4m3.
  DType activations = DType::bf16;
  enum class Path { eager, graph };
  Path path = Path::graph;
  bool load_mtp = true;  // false: as if the checkpoint had no MTP head
  // Called while weights are read, with bytes of the checkpoint; from one thread at a time, not
  // always the same.
  std::function<void(size_t done, size_t total)> progress = {};
};

// Why the first GPU of this machine cannot run this build; empty if it can.
std::optional<std::string> why_no_cuda();

// The checkpoint must have passed check_weights(); it may go once this returns. Throws Error on
// weights that are not finite, on lack of memory and where why_no_cuda() has a reason.
std::unique_ptr<Backend> make_cuda_backend(const Checkpoint& checkpoint, const Config& config,
                                           const CudaOptions& options);

// Random weights of the model's shapes, made on the GPU: for timing a model whose checkpoint is not
// at hand. Only on the path `graph`.
std::unique_ptr<Backend> make_random_cuda_backend(const Config& config, const CudaOptions& options);

}  // namespace qnext::backend
