// How the CUDA operations see a ragged batch: rows of all sequences side by side, and small device
// arrays that say which row belongs where.
//
// Conventions of all src/ops/<op>/<op>_cuda.h: pointers are device pointers unless said otherwise;
// work is queued on `stream` and the call returns at once; strides are in floats; formulas, shapes
// and overlap rules are those of the CPU header beside it. A row's bits depend on that row (and its
// sequence's past) alone: launch shapes never change the order of a sum. Zero rows are allowed and
// launch nothing. A launch that CUDA refuses throws Error.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace qnext::ops::cuda {

// Consecutive rows of one sequence, in time order.
struct SequenceRows {
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t first_position = 0;  // of first_row
  int32_t first_page = 0;      // where this sequence's page table begins in Batch::pages
  int32_t state_in = -1;       // slot; -1: zeros (start of a sequence)
};

// Passed by value; the arrays lie on the device.
struct Batch {
  int64_t rows = 0;
  int64_t sequences = 0;
  const SequenceRows* sequence = nullptr;  // [sequences]
  const int32_t* sequence_of = nullptr;    // [rows]: index into `sequence`
  // [rows]: the slot that receives the state after this row; -1: not kept. Slots are distinct; only
  // a sequence's last row may name its own state_in.
  const int32_t* state_out = nullptr;
  const int32_t* pages = nullptr;  // page tables of all sequences, each at its first_page
};

// One layer's recurrent state in all slots: slot s at base + s * stride.
struct States {
  float* base = nullptr;
  int64_t stride = 0;
};

}  // namespace qnext::ops::cuda
