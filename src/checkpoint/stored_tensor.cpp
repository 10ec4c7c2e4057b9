#include "checkpoint/stored_tensor.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

namespace qnext {

namespace {

// `count` rows of a run, from its row `first` on, in `dtype`, which holds their values.
void copy_run(const RowRun& run, int64_t first, int64_t count, size_t columns, DType dtype,
              std::byte* out) {
  const std::byte* source = run.data + static_cast<size_t>(first) * dtype_bytes(run.dtype, columns);
  convert(run.dtype, source, dtype, out, static_cast<size_t>(count) * columns);
}

}  // namespace

int64_t StoredTensor::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::vector<DType> StoredTensor::stored_types() const {
  if (runs.empty()) return {dtype};
  std::vector<DType> types;
  for (const RowRun& run : runs)
    if (std::ranges::find(types, run.dtype) == types.end()) types.push_back(run.dtype);
  return types;
}

const std::byte* rows_of(const StoredTensor& matrix, int64_t first, int64_t count,
                         std::vector<std::byte>& scratch) {
  const auto columns = static_cast<size_t>(matrix.shape.back());
  const size_t row_bytes = dtype_bytes(matrix.dtype, columns);
  if (matrix.runs.empty()) return matrix.data + static_cast<size_t>(first) * row_bytes;
  scratch.resize(static_cast<size_t>(count) * row_bytes);
  std::byte* out = scratch.data();
  int64_t begin = 0;  // of the run, in rows of the matrix
  for (const RowRun& run : matrix.runs) {
    const int64_t from = std::max(first, begin);
    const int64_t to = std::min(first + count, begin + run.rows);
    if (from < to) {
      copy_run(run, from - begin, to - from, columns, matrix.dtype, out);
      out += static_cast<size_t>(to - from) * row_bytes;
    }
    begin += run.rows;
  }
  QNEXT_CHECK(out == scratch.data() + scratch.size(), "{} lacks rows", matrix.name);
  return scratch.data();
}

std::vector<float> widened(const StoredTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  std::vector<std::byte> scratch;
  const std::byte* source =
      tensor.runs.empty() ? tensor.data : rows_of(tensor, 0, tensor.shape.front(), scratch);
  convert_to_float(tensor.dtype, source, values.data(), values.size());
  return values;
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string printable(std::string_view name) {
  constexpr size_t longest = 200;
  std::string quoted;
  json::append_string(quoted, name.substr(0, longest));
  std::string text = quoted.substr(1, quoted.size() - 2);
  if (name.size() > longest) text += "...";
  return text;
}

const StoredTensor* find_by_name(const std::vector<StoredTensor>& tensors, std::string_view name) {
  const auto it = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const StoredTensor& tensor, std::string_view key) { return tensor.name < key; });
  return it != tensors.end() && it->name == name ? &*it : nullptr;
}

}  // namespace qnext
