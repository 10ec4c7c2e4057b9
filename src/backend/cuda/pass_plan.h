// Cutting one step's rows into passes that the tensor-core kernels take.
//
// A pass holds rows of one form. Answers: at most 8 rows a sequence, of one span of positions (as
// attention wants them), and 256 in all. Prompts: any
// number, but the recurrent state can be kept only behind a sequence's last row, so a sequence that
// keeps it elsewhere too is cut there and goes on in the next pass.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/common/passes.h"

namespace qnext::backend::cuda {

// Rows of one sequence within a pass.
struct PassSequence {
  RowSequence rows;        // first_row counts within the pass
  int64_t driver_row = 0;  // the same row in the driver's count
};

struct PassPlan {
  bool answer = false;
  std::vector<PassSequence> sequences;
  int64_t rows = 0;
  int64_t longest = 0;    // positions that the last row of any sequence sees
  int64_t most_rows = 0;  // of a sequence
};

// In the order in which they must run; answers first.
std::vector<PassPlan> plan_passes(std::span<const RowSequence> sequences);

}  // namespace qnext::backend::cuda
