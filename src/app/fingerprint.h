// What cached prefixes on disk belong to.
#pragma once

#include <cstdint>

#include "app/model_files.h"
#include "app/options.h"
#include "backend/step.h"

namespace qnext::app {

// Of all that the bytes of KV pages and states depend on: the model (its config, the names, types
// and shapes of its tensors, and samples of their values), how it is held and run, and this version
// of qnext.
uint64_t fingerprint(const ModelFiles& files, const MachineOptions& options,
                     const backend::Capabilities& capabilities);

}  // namespace qnext::app
