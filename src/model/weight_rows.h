// The rows of one weight as floats, however they are stored.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace qnext {

// A tensor of a single dimension is one row; one of [channels, 1, width] has a row for each
// channel. FP8 values are multiplied with the scales of their blocks. Safe to read from several
// threads at once, each with a scratch of its own.
class WeightRows {
 public:
  // The checkpoint outlives it. Throws Error where the tensor, or its scales, are absent.
  WeightRows(const Checkpoint& checkpoint, const std::string& name);

  int64_t columns() const { return tensor_.shape.back(); }
  // Row `row` to columns() floats.
  void read(int64_t row, float* out, std::vector<std::byte>& scratch) const;

 private:
  const StoredTensor& tensor_;
  std::vector<float> scales_;  // of FP8: [ceil(rows / 128), ceil(columns / 128)]
};

}  // namespace qnext
