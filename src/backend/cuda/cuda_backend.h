// One NVIDIA GPU behind backend/step.h: the plain, eager backend. Activations and sums are fp32,
// weights stay in the type that the checkpoint stores; tokens are drawn on the host.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "backend/step.h"
#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "tensor/dtype.h"

namespace qnext::backend {

struct CudaOptions {
  int threads = 0;              // that read and check weights, and draw; 0: one for each core
  DType kv_dtype = DType::f32;  // f32 or bf16
  bool load_mtp = true;         // false: as if the checkpoint had no MTP head
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

}  // namespace qnext::backend
