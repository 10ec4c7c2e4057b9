// Tensors where a checkpoint's files hold them: names, types and shapes over mapped bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace qnext {

// Some rows of a matrix that lie together in a file.
struct RowRun {
  DType dtype = DType::f32;
  int64_t rows = 0;
  const std::byte* data = nullptr;
  size_t file = 0;
  size_t offset = 0;
};

// One tensor of a mapped file, row-major. The bytes live as long as the file that was asked for
// them. `data` need not be aligned: the formats allow any place.
struct StoredTensor {
  // The file of a tensor whose bytes the checkpoint itself made.
  static constexpr size_t no_file = SIZE_MAX;

  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;   // as stored
  size_t file = 0;    // Checkpoint::maps() index
  size_t offset = 0;  // of the data from the start of that file
  // A matrix whose rows another layout scatters: run after run they are its rows in order, and
  // `data` is null. Where the runs differ in type, dtype is one that holds the values of all.
  std::vector<RowRun> runs = {};

  int64_t elements() const;
  // The types in which it is stored: one, but for runs.
  std::vector<DType> stored_types() const;
};

// Rows [first, first + count) of a matrix in its dtype: where they lie, or, of a matrix of runs,
// gathered into `scratch`.
const std::byte* rows_of(const StoredTensor& matrix, int64_t first, int64_t count,
                         std::vector<std::byte>& scratch);

// All values as floats, in order; of FP8 without its scales.
std::vector<float> widened(const StoredTensor& tensor);

// "[151936, 2048]"
std::string shape_text(std::span<const int64_t> shape);

// A name from a file, fit for a one-line error: control characters escaped, cut after 200 bytes.
std::string printable(std::string_view name);

// Look-up in a list in name order; null where absent.
const StoredTensor* find_by_name(const std::vector<StoredTensor>& tensors, std::string_view name);

}  // namespace qnext
