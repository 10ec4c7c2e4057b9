// A checkpoint to a GGUF file, its matrices rounded to blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf_writer.h"
#include "model/importance.h"
#include "model/quantize_recipe.h"

namespace qnext {

struct QuantizeOptions {
  DType type = DType::q8_0;
  std::vector<TypeOverride> overrides = {};
  const Importance* importance = nullptr;  // null: every value counts alike
  int threads = 0;                         // 0: one for each core
  // Called with bytes of the file's data; what it throws stops the work.
  std::function<void(size_t done, size_t total)> progress = {};
};

// What became of a tensor. Its relative error is sqrt(squared_error / squared_norm).
struct QuantizedTensor {
  std::string name;
  WeightSpec spec;  // of the first weight in it
  DType dtype = DType::f32;
  int64_t values = 0;
  size_t bytes = 0;
  double squared_error = 0;  // sum over all values of (stored - value)^2
  double squared_norm = 0;   // sum over all values of value^2, as it would be exact in the file
};

// Writes all tensors of gguf_layout(), the MTP head where the checkpoint has one, below `metadata`,
// rows encoded by encode_row(). Memory: a few megabytes a thread beside the checkpoint's pages. The
// file appears under its name once it is complete. The same bytes for any number of threads.
// The checkpoint has passed check_weights(). Throws Error: a value that is not finite or too large
// for its type, naming the tensor; importances of another width than their weight; a disk without
// room, which is seen before anything is written where the system tells.
std::vector<QuantizedTensor> quantize(const Config& config, const Checkpoint& checkpoint,
                                      bool with_mtp, const GgufPairs& metadata,
                                      const std::string& path, const QuantizeOptions& options);

}  // namespace qnext
