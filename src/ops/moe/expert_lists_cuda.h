// The (row, slot) pairs of a batch sorted by expert: what a kernel needs that visits each expert
// once, however many rows chose it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace qnext::ops::cuda {

// Arrays on the device. Pair p = row * slots + slot.
struct ExpertLists {
  int64_t experts = 0;               // lists; the shared expert, if any, is the last
  int64_t pairs = 0;                 // rows * slots
  const int32_t* offsets = nullptr;  // [experts + 1]: list e is pair[offsets[e] .. offsets[e + 1])
  const int32_t* pair = nullptr;     // [pairs], ascending within a list
  // Experts with a non-empty list, ascending.
  const int32_t* used_count = nullptr;  // [1]
  const int32_t* used = nullptr;        // [experts]
};

// Bytes of workspace behind an ExpertLists.
size_t expert_lists_bytes(int64_t experts, int64_t pairs);

// Sorts ids [rows, slots] (each in 0 .. experts - 1) on the device; the lists lie in `workspace`
// (256-byte aligned) and hold once the stream gets there. Stable: a fixed order for the same ids.
ExpertLists list_experts(cudaStream_t stream, const int32_t* ids, int64_t rows, int64_t slots,
                         int64_t experts, void* workspace);

}  // namespace qnext::ops::cuda
