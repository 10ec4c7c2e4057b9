// Streams of the runtime: work is begun at once, unless its stream is being captured into a graph.
// All but launches end those that are open first (runtime_overlap.h).
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <vector>

namespace qnext::emulator {

using Work = std::function<cudaError_t()>;

// The order of the calls is an order that satisfies every stream and event.
struct Graph {
  std::vector<Work> works;
  // Its works in their order, up to the first that fails.
  cudaError_t run() const;
};

// Does the work, or records it.
cudaError_t enqueue(cudaStream_t stream, Work work);

// For calls that would make a capture of this thread wait, which ends the capture: as on a GPU,
// they are refused while there is one.
cudaError_t refuse_in_capture();

}  // namespace qnext::emulator
