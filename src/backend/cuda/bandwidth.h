// How fast this GPU reads its memory.
#pragma once

#include <cuda_runtime_api.h>

namespace qnext::backend::cuda {

// Bytes a second of a kernel that sums a GiB, many times the caches; best of a few passes.
double measure_read_bandwidth(cudaStream_t stream);

}  // namespace qnext::backend::cuda
