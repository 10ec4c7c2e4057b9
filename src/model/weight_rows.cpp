#include "model/weight_rows.h"

#include "model/weight_schema.h"

namespace qnext {

WeightRows::WeightRows(const Checkpoint& checkpoint, const std::string& name)
    : tensor_(checkpoint.get(name)) {
  if (tensor_.dtype == DType::f8_e4m3) scales_ = widened(checkpoint.get(fp8_scale_name(name)));
}

void WeightRows::read(int64_t row, float* out, std::vector<std::byte>& scratch) const {
  const auto count = static_cast<size_t>(columns());
  const std::byte* source =
      tensor_.runs.empty()
          ? tensor_.data + dtype_bytes(tensor_.dtype, count) * static_cast<size_t>(row)
          : rows_of(tensor_, row, 1, scratch);
  convert_to_float(tensor_.dtype, source, out, count);
  if (scales_.empty()) return;
  const size_t blocks = (count + fp8_block - 1) / fp8_block;
  const float* scales = scales_.data() + static_cast<size_t>(row / fp8_block) * blocks;
  for (size_t i = 0; i < count; ++i) out[i] *= scales[i / fp8_block];
}

}  // namespace qnext
