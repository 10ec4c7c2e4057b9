// Launches that are open: run up to where they wait for earlier kernels, and no further yet.
//
// One that may start early (programmatic dependent launch) runs its part before the wait beside
// those that are open in its stream, once the last of them has let it: all that they write is
// missing there as long as it can be. How many of them end first is chance, so that the program's
// order occurs too. All else that is asked of the runtime ends the open ones first.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "emulator/block.h"

namespace qnext::emulator {

cudaError_t start_launch(std::shared_ptr<const Launch> launch, uint32_t seed, cudaStream_t stream,
                         bool may_start_early);

// The first fault of one; it ends all.
cudaError_t finish_launches();

// Forgets them, where a fault has ended all.
void drop_launches();

}  // namespace qnext::emulator
