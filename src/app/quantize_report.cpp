#include "app/quantize_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "app/inventory.h"
#include "app/units.h"

namespace qnext::app {
namespace {

struct Line {
  std::string name;
  int64_t tensors = 0;
  int64_t values = 0;
  size_t bytes = 0;
  double squared_error = 0;
  double squared_norm = 0;
  std::map<DType, int64_t> types = {};  // values of each

  void add(const QuantizedTensor& tensor) {
    ++tensors;
    values += tensor.values;
    bytes += tensor.bytes;
    squared_error += tensor.squared_error;
    squared_norm += tensor.squared_norm;
    types[tensor.dtype] += tensor.values;
  }
};

// The types, that of most values first.
std::string types_text(const Line& line) {
  std::vector<std::pair<int64_t, DType>> order;
  for (const auto& [type, values] : line.types) order.emplace_back(-values, type);
  std::ranges::sort(order);
  std::string text;
  for (const auto& [values, type] : order)
    text += (text.empty() ? "" : " ") + std::string(dtype_name(type));
  return text;
}

std::string line_text(const Line& line) {
  const double bits = 8 * static_cast<double>(line.bytes) / static_cast<double>(line.values);
  const std::string error =
      line.squared_error > 0
          ? fmt::format("{:.3g} %", 100 * std::sqrt(line.squared_error / line.squared_norm))
          : "0";
  return fmt::format("  {:<16}{:>8}{:>12}{:>12}{:>8.2f}{:>12}  {}\n", line.name, line.tensors,
                     count_text(static_cast<double>(line.values)),
                     bytes_text(static_cast<double>(line.bytes)), bits, error, types_text(line));
}

}  // namespace

std::string quantize_table(const std::vector<QuantizedTensor>& tensors) {
  std::vector<Line> lines;
  Line total{.name = "total"};
  for (const QuantizedTensor& tensor : tensors) {
    const std::string name = weight_group(tensor.spec);
    auto line = std::ranges::find(lines, name, &Line::name);
    if (line == lines.end()) line = lines.insert(line, Line{.name = name});
    line->add(tensor);
    total.add(tensor);
  }
  std::string out = fmt::format("  {:<16}{:>8}{:>12}{:>12}{:>8}{:>12}  {}\n", "weights", "tensors",
                                "parameters", "bytes", "bits", "error", "type");
  for (const Line& line : lines) out += line_text(line);
  return out + line_text(total);
}

}  // namespace qnext::app
