// Binds the tensors of a model by name and packs them into the GPU's memory.
#pragma once

#include <optional>

#include "backend/cuda/device_store.h"
#include "backend/cuda/packed_weights.h"
#include "backend/cuda/weight_source.h"
#include "base/thread_pool.h"
#include "model/config.h"

namespace qnext::backend::cuda {

struct PackedLoadOptions {
  // f8_e4m3 or q4_0: for all matrices but routers, gates and the small in_proj_ba. Without it f8
  // stays f8 and everything else becomes bf16.
  std::optional<DType> quantize;
  bool load_mtp = true;  // with it, a copy of lm_head in 4 bits
  Progress progress;
};

// All memory comes from `store`. Throws Error on lack of memory, and naming the first tensor that
// holds a value that is not finite.
PackedModel load_packed(const WeightSource& source, const Config& config,
                        const PackedLoadOptions& options, DeviceStore& store, ThreadPool& pool);

}  // namespace qnext::backend::cuda
