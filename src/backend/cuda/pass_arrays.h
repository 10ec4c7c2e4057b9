// What the kernels of a pass ask about its batch: one array on the device, filled by one copy, or
// where it is small by a kernel that has it as a parameter.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "backend/cuda/caches.h"
#include "backend/cuda/device_memory.h"
#include "backend/cuda/lone_row.h"
#include "backend/cuda/pass_plan.h"
#include "ops/batch_cuda.h"

namespace qnext::backend::cuda {

// On the device; the places depend on the numbers of rows and sequences alone, so that a captured
// graph finds the next pass of the same shape there.
struct PassBatch {
  ops::cuda::Batch batch;
  const int32_t* tokens = nullptr;       // [rows]
  const int32_t* hidden_rows = nullptr;  // [rows], of the MTP head: rows of its hidden input
};

// The tokens of a pass: numbers, or places in an array on the device that holds them by the time
// the pass runs.
struct PassTokens {
  std::span<const int32_t> values;
  const int32_t* table = nullptr;  // null: `values` are the tokens
};

class PassArrays {
 public:
  // hidden_rows may be empty; slots become the places that they have now, a lone row's output the
  // spare one. The arrays hold until the next call, in the order of the stream.
  PassBatch upload(const Stream& stream, const PassPlan& plan, const StateSlots& slots,
                   const PassTokens& tokens, std::span<const int32_t> hidden_rows);

  // What was uploaded last, of a lone row.
  LoneRowArrays lone_row() const { return lone_row_; }

  // Counts up whenever the arrays move: graphs captured before are then of no use.
  int64_t generation() const { return generation_; }

 private:
  struct Staging {
    PinnedBuffer memory;
    Event copied;
  };

  void copy(const Stream& stream, std::span<const int32_t> words);

  std::array<Staging, 4> staging_;
  size_t turn_ = 0;
  DeviceBuffer memory_;
  LoneRowArrays lone_row_;
  int64_t generation_ = 0;
};

}  // namespace qnext::backend::cuda
