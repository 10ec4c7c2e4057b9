// Graphs of the runtime: what a capture has recorded.
#pragma once

#include <cuda_runtime_api.h>

#include "emulator/runtime_streams.h"

namespace qnext::emulator {

// A handle for it, until cudaGraphDestroy().
cudaGraph_t make_graph(Graph graph);

}  // namespace qnext::emulator
