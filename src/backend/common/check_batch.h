// The rules of step.h, checked: a batch that breaks them is a bug of the engine.
#pragma once

#include "backend/step.h"

namespace qnext::backend {

// Ends the process with a word on the first rule that is broken; `reserved` is what is there.
void check_batch(const Batch& batch, const Config& config, const Capabilities& capabilities,
                 const Reservation& reserved);

}  // namespace qnext::backend
