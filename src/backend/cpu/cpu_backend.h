// The CPU behind backend/step.h.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>

#include "backend/step.h"
#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "tensor/dtype.h"

namespace qnext::backend {

struct CpuOptions {
  int threads = 0;  // 0: one for each core that this process may run on
  // Hold the matrices in blocks of this type, quantised at load. Router, gates, convolution and
  // norms keep their type, and so does a matrix whose width is no multiple of 32. None: weights
  // are used where the file is mapped, in the type it stores; blocks become panels (held_dtype() of
  // backend/common/weights.h says of which type).
  std::optional<DType> quantize = {};
  DType kv_dtype = DType::f32;  // f32, bf16 or q8_0
  bool load_mtp = true;         // false: as if the checkpoint had no MTP head
  // Called while weights are checked and quantised, with bytes of the checkpoint; from one thread
  // at a time, not always the same.
  std::function<void(size_t done, size_t total)> progress = {};
};

// The checkpoint must have passed check_weights() and must outlive the backend: unquantised
// weights stay in its memory map. Throws Error on weights that are not finite and on lack of
// memory.
std::unique_ptr<Backend> make_cpu_backend(const Checkpoint& checkpoint, const Config& config,
                                          const CpuOptions& options);

}  // namespace qnext::backend
